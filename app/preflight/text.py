"""A preflight for a person, on a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from app.preflight.check import Preflight, Suggestion
from app.preflight.findings import Finding, gib, needs
from app.render import STYLES, WORDS, Paper
from ctxplan.naming import gpu_name
from estimator.advise.answer import plain
from estimator.rules import shown

LEVELS = {"error": "bold red", "warning": "yellow", "note": "dim"}


def render_preflight(answer: Preflight, paper: Paper) -> list[RenderableType]:
    """The verdict first, then the phases, what was found, what is not modelled, and what was assumed."""
    parts: list[RenderableType] = [
        _verdict(answer),
        _card(answer),
        Text("\nEach part of the run at its largest:"),
        _phases(answer),
    ]
    if answer.findings:
        parts += [Text("\nFound:"), *_bullets([_finding(finding) for finding in answer.findings])]
    if answer.unsure:
        keys = ", ".join(doubt.key for doubt in answer.unsure)
        parts.append(Text(f"\nUncertain because of what is not modelled: {keys}."))
    if answer.longest is not None:
        safe, expected = answer.longest.safe, answer.longest.expected
        parts.append(Text(f"\nLongest context of this job: {safe:,} tokens safe, {expected:,} expected."))
    parts += [Text(line) for line in changes_of(answer)]
    return [*parts, Text("Assumed:"), *_bullets([Text(text) for text in answer.assumptions])]


def _verdict(answer: Preflight) -> Text:
    estimate = answer.estimate
    host = f" in the host's RAM ({needs(estimate)})" if estimate.limited_by == "host" else ""
    return Text.assemble(
        (WORDS[answer.verdict] + host, STYLES[answer.verdict]),
        f": {answer.reading.file} ({answer.reading.tool}) at {estimate.confidence:.0%} confidence.",
    )


def _card(answer: Preflight) -> Text:
    estimate = answer.estimate
    gpu = estimate.job.gpu
    name = gpu_name(gpu)
    limit = estimate.job.host_ram_bytes
    of = f" of {gib(limit)}" if limit else ", not checked (--host-ram)"
    return Text(
        f"{name}: {gib(estimate.needed_bytes.expected)} needed, at most {gib(estimate.needed_bytes.upper)}, of "
        f"{gib(estimate.room_bytes)}. Host RAM: {gib(estimate.host_bytes.expected)}{of}."
    )


def _phases(answer: Preflight) -> Table:
    listed = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    listed.add_column("part", overflow="fold")
    listed.add_column("tokens", justify="right", no_wrap=True)
    listed.add_column("GPU", justify="right", no_wrap=True)
    for phase in answer.phases:
        tokens = f"{phase.sequence_length:,}" if phase.sequence_length else ""
        listed.add_row(phase.phase, tokens, gib(phase.allocated_bytes))
    return listed


def changes_of(answer: Preflight) -> list[str]:
    """What makes it fit, a line each; that nothing is known to where it does not and nothing is."""
    if not answer.suggestions:
        asked = answer.estimate.verdict != "fits" and answer.estimate.job.mode == "train"
        return ["No change of this job is known to make it fit."] if asked else []
    lines = [_change(suggestion, answer) for suggestion in answer.suggestions]
    return [f"Change {number}: {line}" for number, line in enumerate(lines, 1)]


def _change(suggestion: Suggestion, answer: Preflight) -> str:
    proposal, told = suggestion.proposal, suggestion.written
    changes = plain(proposal.changes)
    parts = [f"{key} {shown_value(value)}" for key, value in told.config.items()]
    parts += [f"{name}={value} in the environment" for name, value in told.environment.items()]
    parts += [f"on one {changes['gpu']}"] if "gpu" in changes else []
    parts += [f"{key} {shown_value(changes[key])} (not a setting of {answer.reading.tool})" for key in told.missing]
    at = gib(proposal.standing.peak_allocated_bytes.expected)
    if answer.estimate.limited_by == "host":
        at += f", with {gib(proposal.standing.host.total_bytes)} of host RAM"
    return f"{', '.join(parts)}: {WORDS[proposal.standing.verdict].lower()} at {at}."


def shown_value(value: Any) -> str:
    """A value as a config writes it."""
    if isinstance(value, list):
        return f"[{', '.join(str(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {shown_value(one)}' for key, one in value.items())}}}"
    return shown(value) if value is None or isinstance(value, bool) else str(value)


def _finding(finding: Finding) -> Text:
    at = f" ({finding.place})" if finding.place.line else ""
    return Text.assemble((finding.level, LEVELS[finding.level]), f" {finding.rule}: {finding.message}{at}")


def _bullets(texts: Iterable[Text]) -> list[RenderableType]:
    parts: list[RenderableType] = []
    for text in texts:
        grid = Table.grid(padding=(0, 1))
        grid.add_row(" -", text)
        parts.append(grid)
    return parts
