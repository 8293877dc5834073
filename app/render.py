"""Answers for a person, in a layout that stays readable at 80 columns. GiB are 2^30 bytes, and appear here
alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from ctxplan.naming import gpu_name
from estimator import Estimate, MaxContext
from estimator.estimate import Term

GIB = 2**30
NARROWEST_BAR, WIDEST_BAR = 4, 20
EIGHTHS = " ▏▎▍▌▋▊▉"
STYLES = {"fits": "bold green", "does_not_fit": "bold red", "uncertain": "bold yellow"}
WORDS = {"fits": "Fits", "does_not_fit": "Does not fit", "uncertain": "Uncertain"}


class Paper(NamedTuple):
    """What is written on: how many columns it has, and whether it knows block characters."""

    columns: int = 80
    blocks: bool = True


PAPER = Paper()


def render_estimate(answer: Estimate, paper: Paper = PAPER) -> list[RenderableType]:
    """The verdict first, then host RAM, the terms of the peak, the phases, and what was assumed."""
    return [
        _verdict(answer),
        _host(answer),
        Text(f"\nAt the peak, in the {answer.peak_phase} phase ({answer.execution_path} path):"),
        _terms(answer.terms, paper),
        Text("\nEach phase at its largest:"),
        _phases(answer),
        _rope(answer.rope),
        *_assumptions(answer.assumptions),
        _evidence(answer),
    ]


def render_max_context(answer: MaxContext, paper: Paper = PAPER) -> list[RenderableType]:
    """The lengths first, then the estimate at the safe one."""
    gpu = gpu_name(answer.job.gpu)
    if not answer.safe:
        line = Text.assemble(
            ("No length is safe", STYLES["does_not_fit"]), f" on {gpu}; limited by {answer.limited_by}."
        )
    else:
        line = Text.assemble(
            (f"Safe up to {answer.safe:,} tokens", STYLES["fits"]),
            f" on {gpu}; limited by {answer.limited_by}.",
        )
    lines: list[RenderableType] = [line, Text(f"Expected to fit up to {answer.expected:,} tokens.")]
    lines += [Text(f"Shorter, and yet they do not fit: {a:,} to {b:,} tokens.") for a, b in answer.does_not_fit]
    lines += [Text(f"Shorter, and yet uncertain: {a:,} to {b:,} tokens.") for a, b in answer.not_safe]
    if answer.estimate is None:
        return [*lines, *_assumptions(answer.assumptions)]
    return [*lines, Text(f"\nAt {answer.safe:,} tokens:"), *render_estimate(answer.estimate, paper)]


def render_gpus(items: Iterable[Mapping[str, Any]]) -> RenderableType:
    """The GPU catalogue as a table."""
    table = table_of("GPU", "total GiB", "usable GiB", "compute", "measured", numbers=(1, 2))
    for item in items:
        usable, total = _gib(item["usable_bytes"]), _gib(item["total_bytes"])
        table.add_row(item["name"], total, usable, item["compute_capability"], "yes" if item["measured"] else "no")
    return table


def render_models(items: Iterable[Mapping[str, Any]]) -> RenderableType:
    """The model catalogue as a table."""
    table = table_of("model", "family", "parameters", "native tokens", numbers=(2, 3))
    for item in items:
        table.add_row(item["id"], item["family"], f"{item['parameters'] / 1e9:,.2f} B", f"{item['native_length']:,}")
    return table


def _verdict(answer: Estimate) -> Text:
    needed = answer.needed_bytes
    host = " in the host's RAM" if answer.limited_by == "host" else ""
    return Text.assemble(
        (WORDS[answer.verdict] + host, STYLES[answer.verdict]),
        f": the GPU needs {_gib(needed.expected)} GiB, at most {_gib(needed.upper)} GiB "
        f"(at {answer.confidence:.0%}), of the {_gib(answer.room_bytes)} GiB that {gpu_name(answer.job.gpu)} leaves "
        "to PyTorch.",
    )


def _host(answer: Estimate) -> Text:
    host = answer.host_bytes
    limit = answer.job.host_ram_bytes
    of = f" of {_gib(limit)} GiB" if limit else ", not checked (--host-ram-bytes)"
    return Text(
        f"Host RAM: {_gib(host.expected)} GiB{of} ({_gib(host.pinned)} pinned, {_gib(host.pageable)} pageable)."
    )


def _terms(terms: Iterable[Term], paper: Paper) -> Table:
    listed = sorted(terms, key=lambda term: -term.bytes)
    total = sum(term.bytes for term in listed) or 1
    largest = max((term.bytes for term in listed), default=1) or 1
    # What a row needs beside its bar: the name, two numbers, and the space between columns.
    beside = max((len(term.name) for term in listed), default=4) + 28
    cells = max(NARROWEST_BAR, min(WIDEST_BAR, paper.columns - beside))
    table = table_of("term", "GiB", "", "share", numbers=(1, 3))
    for term in listed:
        table.add_row(
            term.name,
            _gib(term.bytes),
            bar(term.bytes / largest, cells, blocks=paper.blocks),
            f"{term.bytes / total:.1%}",
        )
    table.add_row("sum", _gib(sum(term.bytes for term in listed)), "", "100.0%", style="bold")
    return table


def _phases(answer: Estimate) -> Table:
    table = table_of("phase", "GiB", numbers=(1,))
    for phase in answer.phases:
        style = "bold" if phase.phase == answer.peak_phase else None
        table.add_row(phase.phase, _gib(phase.allocated_bytes), style=style)
    return table


def _assumptions(assumptions: Iterable[str]) -> list[RenderableType]:
    bullets = [_bullet(text) for text in assumptions]
    return [Text("Assumed:"), *bullets] if bullets else []


def _bullet(text: str) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_row(" -", Text(text))
    return grid


def _evidence(answer: Estimate) -> Text:
    calibration = answer.calibration
    where = (
        "inside the measured range" if answer.evidence == "inside" else "outside the measured range, so a wider bound"
    )
    fitted = f"{calibration.get('points', 0)} measured points fitted" if calibration.get("points") else "nothing fitted"
    return Text(f"Evidence: {where}. Calibration: {calibration.get('id')} ({fitted}).")


def bar(share: float, cells: int, *, blocks: bool = True) -> str:
    """A bar of up to ``cells`` character cells, exact to an eighth of one; of # where there are no blocks."""
    eighths = round(max(0.0, min(share, 1.0)) * cells * 8)
    full, rest = divmod(eighths, 8)
    if not blocks:
        return "#" * round(eighths / 8)
    return "█" * full + (EIGHTHS[rest] if rest else "")


def table_of(*columns: str, numbers: tuple[int, ...]) -> Table:
    """An empty table with these columns; ``numbers``: which of them hold such, to stand on the right."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, column in enumerate(columns):
        numeric = index in numbers
        table.add_column(column, justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    return table


def _rope(rope: Mapping[str, Any]) -> Text:
    factor = rope.get("factor", 1.0)
    scaled = "" if factor == 1.0 else f" by {factor:g}"
    return Text(f"\nRoPE: native length {rope['native_length']:,} tokens, scaling {rope['scaling']}{scaled}.")


def _gib(size_bytes: int) -> str:
    return "<0.01" if 0 < size_bytes < GIB / 200 else f"{size_bytes / GIB:,.2f}"
