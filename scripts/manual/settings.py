"""Settings of the service, and every other environment variable that is read."""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Le, MinLen
from pydantic import SecretStr
from pydantic.fields import FieldInfo

from app.settings import Settings
from scripts.manual.markdown import code, codes, document, prose, sentence, table

PREFIX = str(Settings.model_config.get("env_prefix"))

OTHERS = {
    "CTXPLAN_SERVER": "The service that commands ask, where `--server` does not say: `http://HOST:PORT`.",
    "CTXPLAN_API_KEY": "The API key that commands send it. It is written nowhere.",
    "CTXPLAN_CALIBRATIONS": "The directory of calibrations, for the command line as for the service.",
    "XDG_DATA_HOME": "Where calibrations are kept without it: `ctxplan/calibrations` below.",
    "XDG_STATE_HOME": "Where a worker keeps results that it has not sent yet.",
    "HF_HUB_OFFLINE": "Never ask the Hub, as `--offline`; `TRANSFORMERS_OFFLINE` likewise.",
    "HF_ENDPOINT": "Another address of the Hub.",
    "HF_HOME": "Where the Hub's cache is; `HF_HUB_CACHE` names the cache itself.",
    "HF_TOKEN": "For a gated model on the command line. `ctxplan serve` does not send it for those who ask it.",
    "GITHUB_STEP_SUMMARY": "A file to which `ctxplan preflight --format github` adds its whole answer.",
}
"""Beside the settings. What only the processes of one run tell each other is not here (`INTERNAL`)."""

OF_LIBRARIES = {
    "FORWARDED_ALLOW_IPS": "Whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed (uvicorn); loopback's.",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "Where traces are sent; [OpenTelemetry's others](../operations.md) beside it.",
}
"""What the libraries of the service read themselves."""

INTERNAL = frozenset({"CTXPLAN_PROBE_EVENTS"})
"""Variables that a process sets for its own child."""


def page() -> str:
    """The settings reference."""
    rows = [
        (code(variable(name)), kind(field), default(field), sentence(prose(field.description)))
        for name, field in Settings.model_fields.items()
    ]
    return document(
        "Settings",
        "The service reads its settings from the environment, once, when it starts. A value that is none stops it with "
        "exit code 2 and the variable's name. `ctxplan serve --host --port` win over theirs. "
        "[Running the service](../service.md) says when to use them.",
        table(("variable", "value", "default", "meaning"), rows),
        "## Other variables",
        "What the command line, the client, the probes and the workers read beside them.",
        table(("variable", "meaning"), [(code(name), meaning) for name, meaning in OTHERS.items()]),
        "What its libraries read:",
        table(("variable", "meaning"), [(code(name), meaning) for name, meaning in OF_LIBRARIES.items()]),
    )


def variable(name: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + name.upper()


def kind(field: FieldInfo) -> str:
    """What values a setting takes, in words."""
    accepted = [one for one in _alternatives(field.annotation) if one is not NoneType]
    words = " or ".join(_word(one) for one in accepted)
    low = next((str(one.ge) for one in field.metadata if isinstance(one, Ge)), "")
    high = next((str(one.le) for one in field.metadata if isinstance(one, Le)), "")
    least = next((one.min_length for one in field.metadata if isinstance(one, MinLen)), None)
    if low or high:
        words += f", {low} to {high}" if low and high else f", at least {low}" if low else f", at most {high}"
    return words if least is None else f"{words} of at least {least} characters"


def default(field: FieldInfo) -> str:
    """A setting's default, empty where it is decided otherwise."""
    value = field.default
    if value is None:
        return ""
    return code(str(value).lower() if isinstance(value, bool) else str(value))


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    if get_origin(annotation) is Literal:
        return (annotation,)
    return get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)


def _word(annotation: Any) -> str:
    if get_origin(annotation) is Literal:
        return codes(get_args(annotation))
    if annotation is SecretStr:
        return "secret"
    return {int: "whole number", float: "number", bool: "`true` or `false`", str: "text"}.get(annotation, "path")
