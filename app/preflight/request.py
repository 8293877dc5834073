"""A preflight over HTTP: the config as text or as an object, with the card, the host and the data beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.preflight.question import Question
from app.preflight.token_report import read_token_report
from app.readers import TOOLS, ConfigError, Place, read
from app.readers.document import document_of, read_document
from estimator.errors import JobError
from estimator.job import RULES as JOB_RULES
from estimator.rules import Choice, Optional, Rule, Schema, Text, parse_object, shown

FILE = "config"


class _Config:
    """A config file's text, or what it holds."""

    def parse(self, key: str, value: Any) -> Any:
        if isinstance(value, str | Mapping):
            return value
        raise JobError(f"{shown(value)} is not accepted", key=key, allowed="the text of a config, or its values")

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "string"}, {"type": "object"}]}


class _Report:
    """The JSON that ``ctxplan tokens`` writes; `read_token_report` checks it."""

    def parse(self, key: str, value: Any) -> Any:
        return value

    def schema(self) -> Schema:
        counts = {"type": "integer", "minimum": 0}
        names = ("p50", "p90", "p95", "p99", "max")
        percentiles = {"type": "object", "properties": dict.fromkeys(names, counts), "required": list(names)}
        properties = {"documents": counts, "tokens": counts, "percentiles": percentiles}
        return {"type": "object", "properties": properties, "required": list(properties)}


RULES: Mapping[str, Rule] = {
    "config": _Config(),
    "file": Text(256),
    "tool": Optional(Choice(TOOLS)),
    "model": Optional(JOB_RULES["model"]),
    "gpu": Optional(JOB_RULES["gpu"]),
    "host_ram_bytes": JOB_RULES["host_ram_bytes"],
    "confidence": Optional(JOB_RULES["confidence"]),
    "tokens": Optional(_Report()),
    "strict": Choice((True, False)),
    "fail_on": Choice(("uncertain", "does_not_fit")),
}
"""One rule a key of the request."""


def read_request(data: Any) -> Question:
    """Read the body of a request. Raises CtxplanError."""
    values = parse_object(RULES, data, what="a preflight", required=frozenset({"config"}))
    file, config = values.get("file", FILE), values["config"]
    is_text = isinstance(config, str)
    document = read_document(_encoded(config, file), file) if is_text else document_of(config, file)
    tokens = values.get("tokens")
    question = Question(
        reading=read(document, values.get("tool")),
        model=values.get("model"),
        gpu=values.get("gpu"),
        host_ram_bytes=values.get("host_ram_bytes"),
        confidence=values.get("confidence"),
        tokens=read_token_report(tokens) if tokens is not None else None,
        strict=values.get("strict", False),
    )
    return replace(question, fail_on=values.get("fail_on", question.fail_on))


def request_schema() -> Schema:
    """The request as JSON Schema, for OpenAPI."""
    return {
        "type": "object",
        "title": "PreflightRequest",
        "properties": {key: rule.schema() for key, rule in RULES.items()},
        "required": ["config"],
        "additionalProperties": False,
    }


def _encoded(text: str, file: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ConfigError("holds half a character", place=Place(file), key="config", allowed="text") from None
