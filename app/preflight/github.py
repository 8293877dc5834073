"""A preflight as GitHub Actions shows it: annotations on the config's lines, and a step summary.

Source: GitHub's documentation of workflow commands; actions/toolkit, packages/core ``command.ts`` for the escapes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from app.preflight.check import Preflight
from app.preflight.findings import gib, needs
from app.preflight.text import changes_of
from app.readers import ConfigError, Place
from estimator import Estimate
from estimator.errors import CtxplanError

COMMANDS = {"error": "error", "warning": "warning", "note": "notice"}
MOST = 10
"""Annotations of one kind that GitHub shows of a step; the summary has them all."""
SUMMARY_BYTES = 2**20
"""GitHub refuses a larger step summary."""
_VERDICTS = {"fits": "notice", "does_not_fit": "error", "uncertain": "warning"}
_TITLES = {"fits": "Fits", "does_not_fit": "Does not fit", "uncertain": "Uncertain whether it fits"}


class Annotation(NamedTuple):
    """One remark on a line of a file."""

    kind: str
    title: str
    message: str
    place: Place

    def command(self) -> str:
        """The workflow command, on one line."""
        properties = {"file": self.place.file, "line": self.place.line, "title": self.title}
        listed = ",".join(f"{name}={_property(str(value))}" for name, value in properties.items() if value)
        return f"::{self.kind} {listed}::{_data(self.message)}"


def remarks(answer: Preflight) -> list[Annotation]:
    """The verdict, the findings and the doubts, at most `MOST` of a kind."""
    estimate = answer.estimate
    verdict = Annotation(
        _VERDICTS[answer.verdict],
        _title(answer),
        f"{needs(estimate)}; limited by {estimate.limited_by}",
        answer.reading.place("max_seq_length"),
    )
    found = [Annotation(COMMANDS[f.level], f.rule, f.message, f.place) for f in answer.findings]
    doubts = [
        Annotation(
            "warning" if doubt in answer.unsure else "notice",
            "not modelled",
            f"{doubt.key}: {doubt.message}",
            doubt.place,
        )
        for doubt in answer.reading.doubts
    ]
    return list(_limited([verdict, *found, *doubts]))


def annotation_of_error(error: CtxplanError, file: str) -> Annotation:
    """An input that could not be planned."""
    place = error.place if isinstance(error, ConfigError) else Place(file)
    return Annotation("error", "ctxplan cannot read this", CtxplanError.__str__(error), place)


def summary(answer: Preflight) -> str:
    """The answer as Markdown."""
    estimate = answer.estimate
    lines = [
        f"### {_title(answer)}: `{_code(answer.reading.file)}`",
        "",
        f"{gib(estimate.needed_bytes.expected)} of GPU memory needed, at most {gib(estimate.needed_bytes.upper)} at "
        f"{estimate.confidence:.0%} confidence, of {gib(estimate.room_bytes)}. "
        f"Host RAM: {_host(estimate)}. Limited by the {estimate.limited_by}.",
        "",
        "| part of the run | tokens | GPU |",
        "|---|--:|--:|",
        *(f"| {p.phase} | {p.sequence_length or ''} | {gib(p.allocated_bytes)} |" for p in answer.phases),
    ]
    if answer.findings:
        lines += ["", *(f"- **{f.level}** {f.rule}: {_markdown(f.message)}" for f in answer.findings)]
    changes = changes_of(answer)
    if changes:
        lines += ["", *(f"- {_markdown(change)}" for change in changes)]
    if answer.reading.doubts:
        lines += ["", "Not modelled:", *(f"- `{_code(d.key)}`: {_markdown(d.message)}" for d in answer.reading.doubts)]
    lines += ["", "Assumed:", *(f"- {_markdown(text)}" for text in answer.assumptions), ""]
    return "\n".join(lines) + "\n"


def _title(answer: Preflight) -> str:
    """The verdict, with the host's numbers where its RAM is what limits."""
    host = f" in the host's RAM: {needs(answer.estimate)}" if answer.estimate.limited_by == "host" else ""
    return f"{_TITLES[answer.verdict]}{host}"


def _host(estimate: Estimate) -> str:
    ram, needed = estimate.job.host_ram_bytes, gib(estimate.host_bytes.expected)
    return f"{needed}, not checked" if ram is None else f"{needed} of {gib(ram)}"


def append_summary(path: Path, text: str) -> None:
    """Add to a step's summary, cut to what GitHub takes of one step. Raises OSError."""
    body = text.encode("utf-8", "replace")[:SUMMARY_BYTES]
    with path.open("ab") as file:
        if file.tell() + len(body) <= SUMMARY_BYTES:
            file.write(body)


def _limited(all_of_them: Iterable[Annotation]) -> Iterator[Annotation]:
    told: dict[str, int] = {}
    for annotation in all_of_them:
        told[annotation.kind] = told.get(annotation.kind, 0) + 1
        if told[annotation.kind] <= MOST:
            yield annotation


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _markdown(text: str) -> str:
    """Text in which nothing is markup: a config may hold anything."""
    return "".join(f"\\{c}" if c in "\\`*_{}[]<>#|!~" else c for c in text.replace("\n", " "))


def _code(text: str) -> str:
    return text.replace("`", "'").replace("\n", " ")
