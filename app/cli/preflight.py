"""``ctxplan preflight``: check launchers' configs before they are run."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import typer

from app.cli.jobs import Json, Offline
from app.cli.output import BAD_INPUT, DOES_NOT_FIT, DONE, UNCERTAIN, print_json, print_text, show
from app.cli.planner import planner
from app.readers import TOOLS, ConfigError, Place
from estimator.errors import CtxplanError, JobError
from estimator.job import RULES

if TYPE_CHECKING:
    from app.preflight import Preflight, Question, TokenReport
    from app.readers import Reading
    from app.readers.document import Document
    from ctxplan import Planner

Format = Literal["text", "json", "github"]
FailOn = Literal["uncertain", "does_not_fit"]
MAX_REPORT_BYTES = 2**24
SUMMARY = "GITHUB_STEP_SUMMARY"
MISTAKEN_FOR_GIB = 2**20
"""A smaller number without a unit is one of GiB."""
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
BINARY = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}

WORST_LAST = (DONE, UNCERTAIN, DOES_NOT_FIT, BAD_INPUT)
"""Exit codes of several configs: one that has no answer outweighs any answer."""
VERDICTS_WORST_LAST = ("fits", "uncertain", "does_not_fit", "unreadable")

Configs = Annotated[
    list[str],
    typer.Argument(metavar="CONFIG|-", show_default=False, help="Configs, YAML or JSON; - reads standard input."),
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


class Outcome(NamedTuple):
    """What became of one config: an answer, or why there is none."""

    file: str
    answer: Preflight | None = None
    error: CtxplanError | None = None

    @property
    def exit_code(self) -> int:
        return BAD_INPUT if self.answer is None else self.answer.exit_code

    @property
    def verdict(self) -> str:
        return "unreadable" if self.answer is None else self.answer.verdict

    def to_json(self) -> dict[str, Any]:
        """The answer; of a config that has none, its file, its exit code and the error."""
        if self.answer is not None:
            return self.answer.to_json()
        missing = {"verdict": self.verdict, "exit_code": self.exit_code, "config": {"file": self.file}}
        return {**missing, "error": str(self.error)}


def preflight(
    configs: Configs,
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
    """Check configs of Unsloth, TRL, Axolotl or LLaMA-Factory, or jobs: do they fit, and what stands out.

    Exit codes: 0 fits, 1 does not fit, 2 unreadable, 3 uncertain (0 with --fail-on does_not_fit). Of several configs,
    the worst: 2, then 1, then 3.
    """
    output = "json" if as_json else output
    try:
        from app.preflight import Question

        asked = partial(
            Question,
            gpu=_gpu(gpu),
            model=None if model is None else RULES["model"].parse("--model", model),
            host_ram_bytes=_host_ram(host_ram),
            confidence=_checked("confidence", "--confidence", _float(confidence)),
            tokens=_report(tokens_report),
            strict=strict,
            fail_on=fail_on,
        )
        shared = planner(offline=offline)
    except CtxplanError as error:
        if output == "github":
            _annotate([Outcome(_named(configs[0]), error=error)])
        raise
    outcomes = [_outcome(config, tool, asked, shared) for config in configs]
    _tell(outcomes, output)
    if len(outcomes) == 1 and outcomes[0].error is not None:
        raise outcomes[0].error
    raise typer.Exit(max((outcome.exit_code for outcome in outcomes), key=WORST_LAST.index))


def _outcome(config: str, tool: str | None, asked: Callable[..., Question], shared: Planner) -> Outcome:
    from app.preflight import check

    file = _named(config)
    try:
        return Outcome(file, answer=check(asked(reading=_read(config, file, tool)), shared))
    except CtxplanError as error:
        return Outcome(file, error=error)


def _named(config: str) -> str:
    return "standard input" if config == "-" else config


def _tell(outcomes: list[Outcome], output: Format) -> None:
    """Answer in the format that is asked for; what has no answer is told on standard error as well, where it is one
    of several (the error of a single config ends the command, which tells it)."""
    if output == "json":
        _tell_json(outcomes)
    elif output == "github":
        _annotate(outcomes)
        _summarise([outcome.answer for outcome in outcomes if outcome.answer])
    for number, outcome in enumerate(outcomes):
        if outcome.answer and output == "text":
            _show(outcome.answer, first=number == 0)
        if outcome.error and len(outcomes) > 1:
            typer.echo(f"ctxplan: error: {outcome.error}", err=True)


def _show(answer: Preflight, *, first: bool) -> None:
    from app.preflight.text import render_preflight

    if not first:
        typer.echo(err=True)
    show(lambda paper: render_preflight(answer, paper))


def _tell_json(outcomes: list[Outcome]) -> None:
    if len(outcomes) > 1:
        verdict = max((outcome.verdict for outcome in outcomes), key=VERDICTS_WORST_LAST.index)
        exit_code = max((outcome.exit_code for outcome in outcomes), key=WORST_LAST.index)
        items = [outcome.to_json() for outcome in outcomes]
        print_json({"verdict": verdict, "exit_code": exit_code, "items": items})
    elif outcomes[0].answer:
        print_json(outcomes[0].to_json())


def _annotate(outcomes: list[Outcome]) -> None:
    """Annotations of all configs, every verdict before any detail: GitHub shows the first ten of a kind in a step."""
    from app.preflight.github import annotation_of_error, remarks

    verdicts, details = [], []
    for outcome in outcomes:
        if outcome.answer:
            verdict, *others = remarks(outcome.answer)
            verdicts.append(verdict)
            details += others
        elif outcome.error:
            verdicts.append(annotation_of_error(outcome.error, outcome.file))
    print_text("".join(annotation.command() + "\n" for annotation in (*verdicts, *details)))


def _summarise(answers: list[Preflight]) -> None:
    from app.preflight.github import append_summary, summary

    path = os.environ.get(SUMMARY)
    if not path:
        return
    try:
        for answer in answers:
            append_summary(Path(path), summary(answer))
    except OSError as error:
        typer.echo(f"ctxplan: {SUMMARY} cannot be written: {error.strerror}", err=True)


def _read(config: str, file: str, tool: str | None) -> Any:
    from app.readers.document import MAX_CONFIG_BYTES, read_document

    if tool is not None and tool not in TOOLS:
        from estimator.rules import hint

        raise JobError(f'"{tool}" is no known tool{hint(tool, TOOLS)}', key="--tool", allowed=", ".join(TOOLS))
    document = read_document(_body(config, file, MAX_CONFIG_BYTES), file)
    return _read_as(document, tool)


def _read_as(document: Document, tool: str | None) -> Reading:
    """Read it as the tool's. Raises ConfigError, which names the tool that it is of where that is another one."""
    from app.readers import read
    from app.readers.detect import detect, telling_key

    try:
        return read(document, tool)
    except ConfigError as error:
        try:
            found = detect(document)
        except ConfigError:
            raise error from None
        if tool in (None, found):
            raise
        key = telling_key(document, found)
        where = error.place if error.place.line or key is None else document.place((key,))
        said = f"{error.message}; its keys are those of {found}" + (f", such as {key}" if key else "")
        raise ConfigError(said, place=where, key=error.key, allowed=error.allowed) from None


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


def _host_ram(text: str | None) -> Any:
    size = _bytes(text)
    try:
        return _checked("host_ram_bytes", "--host-ram", size)
    except JobError as error:
        if not (isinstance(size, int) and 0 < size < MISTAKEN_FOR_GIB):
            raise
        # Nobody's host has so few bytes: a bare number of this size was meant as GiB.
        allowed = f"{error.allowed}, or {size}GiB"
        raise JobError(f"{size} bytes are no host's RAM", key="--host-ram", allowed=allowed) from None


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
