"""``ctxplan preflight``: check a launcher's config before it is run."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from app.cli.jobs import Json, Offline
from app.cli.output import print_json, print_text, show
from app.cli.planner import planner
from app.readers import TOOLS, ConfigError, Place
from estimator.errors import CtxplanError, JobError
from estimator.job import RULES

if TYPE_CHECKING:
    from app.preflight import Preflight, TokenReport

Format = Literal["text", "json", "github"]
FailOn = Literal["uncertain", "does_not_fit"]
MAX_REPORT_BYTES = 2**24
SUMMARY = "GITHUB_STEP_SUMMARY"
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
BINARY = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}

Config = Annotated[
    str,
    typer.Argument(metavar="CONFIG|-", show_default=False, help="The config, YAML or JSON; - reads standard input."),
]
Gpu = Annotated[
    str | None,
    typer.Option("--gpu", metavar="TEXT", show_default=False, help='GPU name, or {"name": ..., "total_bytes": ...}.'),
]
Model = Annotated[
    str | None,
    typer.Option("--model", metavar="TEXT", show_default=False, help="The model, in place of the config's own."),
]
Tool = Annotated[
    str | None,
    typer.Option("--tool", metavar="NAME", show_default=False, help=f"Whose config it is: {', '.join(TOOLS)}."),
]
HostRam = Annotated[
    str | None,
    typer.Option("--host-ram", metavar="SIZE", show_default=False, help="The host's RAM, as 128GiB or as bytes."),
]
Confidence = Annotated[
    str | None,
    typer.Option("--confidence", metavar="X", show_default=False, help="Probability that the bound holds with."),
]
TokensReport = Annotated[
    Path | None,
    typer.Option(
        "--tokens-report", metavar="FILE", show_default=False, help="What ctxplan tokens --json says of the data."
    ),
]
OutputFormat = Annotated[Format, typer.Option("--format", help="How to answer; github annotates the config's lines.")]
Failing = Annotated[FailOn, typer.Option("--fail-on", help="The least verdict that fails.")]
Strict = Annotated[bool, typer.Option("--strict", help="Fail where a finding is an error, although the job fits.")]


def register(application: typer.Typer) -> None:
    """Add this file's commands."""
    application.command("preflight")(preflight)


def preflight(
    config: Config,
    gpu: Gpu = None,
    model: Model = None,
    tool: Tool = None,
    host_ram: HostRam = None,
    confidence: Confidence = None,
    tokens_report: TokensReport = None,
    output: OutputFormat = "text",
    as_json: Json = False,
    fail_on: Failing = "uncertain",
    strict: Strict = False,
    offline: Offline = False,
) -> None:
    """Check a config of Unsloth, TRL, Axolotl or LLaMA-Factory, or a job: does it fit, and what stands out.

    Exit codes: 0 fits, 1 does not fit, 2 unreadable, 3 uncertain (0 with --fail-on does_not_fit).
    """
    output = "json" if as_json else output
    file = "standard input" if config == "-" else config
    try:
        from app.preflight import Question, check

        question = Question(
            reading=_read(config, file, tool),
            gpu=_gpu(gpu),
            model=None if model is None else RULES["model"].parse("--model", model),
            host_ram_bytes=_checked("host_ram_bytes", "--host-ram", _bytes(host_ram)),
            confidence=_checked("confidence", "--confidence", _float(confidence)),
            tokens=_report(tokens_report),
            strict=strict,
            fail_on=fail_on,
        )
        answer = check(question, planner(offline=offline))
    except CtxplanError as error:
        if output == "github":
            from app.preflight.github import annotation_of_error

            print_text(annotation_of_error(error, file).command() + "\n")
        raise
    _tell(answer, output)
    raise typer.Exit(answer.exit_code)


def _tell(answer: Preflight, output: Format) -> None:
    if output == "json":
        print_json(answer.to_json())
    elif output == "github":
        from app.preflight.github import append_summary, remarks, summary

        print_text("".join(annotation.command() + "\n" for annotation in remarks(answer)))
        path = os.environ.get(SUMMARY)
        if path:
            try:
                append_summary(Path(path), summary(answer))
            except OSError as error:
                typer.echo(f"ctxplan: {SUMMARY} cannot be written: {error.strerror}", err=True)
    else:
        from app.preflight.text import render_preflight

        show(lambda paper: render_preflight(answer, paper))


def _read(config: str, file: str, tool: str | None) -> Any:
    from app.readers import read
    from app.readers.document import MAX_CONFIG_BYTES, read_document

    if tool is not None and tool not in TOOLS:
        from estimator.rules import hint

        raise JobError(f'"{tool}" is no known tool{hint(tool, TOOLS)}', key="--tool", allowed=", ".join(TOOLS))
    return read(read_document(_body(config, file, MAX_CONFIG_BYTES), file), tool)


def _body(path: str, file: str, limit: int) -> bytes:
    """At most one byte more than may be: enough to see that it is too much."""
    try:
        if path == "-":
            if sys.stdin is None:
                raise ValueError("it is closed")
            return sys.stdin.buffer.read(limit + 1)
        with Path(path).open("rb") as opened:
            return opened.read(limit + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ConfigError(f"cannot be read: {reason}", place=Place(file)) from None


def _report(path: Path | None) -> TokenReport | None:
    if path is None:
        return None
    from app.jsontext import read_json
    from app.preflight import read_token_report

    body = _body(str(path), str(path), MAX_REPORT_BYTES)
    if len(body) > MAX_REPORT_BYTES:
        raise ConfigError("larger than a report can be", place=Place(str(path)), allowed=f"{MAX_REPORT_BYTES} bytes")
    try:
        return read_token_report(read_json(body))
    except CtxplanError as error:
        raise ConfigError(error.message, place=Place(str(path)), key=error.key, allowed=error.allowed) from None


def _gpu(text: str | None) -> Any:
    if text is None or not text.lstrip().startswith("{"):
        return text
    from app.jsontext import read_json

    return RULES["gpu"].parse("--gpu", read_json(text.encode("utf-8", "surrogateescape")))


def _bytes(text: str | None) -> Any:
    """A size such as 128GiB, 128G or bytes; what cannot be one is left for the rule to refuse."""
    found = re.fullmatch(r"\s*(\d{1,18}(?:\.\d{1,9})?)\s*([kmgt]?)(i?)b?\s*", text.lower()) if text else None
    if found is None:
        return text
    number, unit, binary = found.groups()
    return int(float(number) * (BINARY if binary else UNITS)[unit])


def _float(text: str | None) -> Any:
    try:
        return text if text is None else float(text)
    except ValueError:
        return text


def _checked(key: str, flag: str, value: Any) -> Any:
    return None if value is None else RULES[key].parse(flag, value)
