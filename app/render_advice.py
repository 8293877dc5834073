"""Proposals for a person: a table, best first, and below it what each one costs and how it reads in a script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from app.render import GIB, PAPER, STYLES, WORDS, Paper
from ctxplan.naming import gpu_name
from estimator.advise import Advice, Proposal
from estimator.advise.answer import plain

TRAINERS = {"sft": "SFTTrainer", "loop": "a bare loop"}


def render_advice(answer: Advice, paper: Paper = PAPER) -> list[RenderableType]:
    """How the job stands first, then the proposals."""
    standing = answer.standing
    gpu = gpu_name(answer.job.gpu)
    head = Text.assemble(
        (WORDS[standing.verdict], STYLES[standing.verdict]),
        f" on {gpu} as it is{_limit(answer)}: a peak of {_gib(standing.peak_allocated_bytes.expected)} GiB; "
        f"safe up to {standing.longest:,} tokens.",
    )
    if not answer.proposals:
        found = "Nothing that is known here makes it fit." if standing.verdict != "fits" else "There is no room to use."
        return [head, Text(found)]
    return [
        head,
        Text(f"\nWhat to change, best first (for {TRAINERS[answer.trainer]}):"),
        _table(answer.proposals),
        *(part for number, proposal in enumerate(answer.proposals, 1) for part in _details(number, proposal)),
    ]


def _table(proposals: tuple[Proposal, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    table.add_column("", justify="right", no_wrap=True)
    table.add_column("change", overflow="fold")
    for name in ("peak GiB", "safe tokens"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for number, proposal in enumerate(proposals, 1):
        standing = proposal.standing
        table.add_row(
            str(number),
            _changes(proposal.changes),
            _gib(standing.peak_allocated_bytes.expected),
            f"{standing.longest:,}",
            WORDS[standing.verdict].lower(),
        )
    return table


def _details(number: int, proposal: Proposal) -> list[RenderableType]:
    grid = Table.grid(padding=(0, 1))
    for option in proposal.options:
        grid.add_row("  ", Text(option.words))
    more = proposal.host_ram_bytes
    if abs(more) >= GIB // 100:
        grid.add_row("  ", Text(f"host RAM: {_gib(abs(more))} GiB {'more' if more > 0 else 'less'}"))
    for line in proposal.code:
        grid.add_row("  ", Text(line, style="cyan"))
    return [Text(f"\n{number}. {_changes(proposal.changes)}", style="bold"), grid]


def _limit(answer: Advice) -> str:
    """What keeps the job from fitting; of a host with what it needs and what there is."""
    standing, ram = answer.standing, answer.job.host_ram_bytes
    if standing.verdict == "fits":
        return ""
    numbers = f" ({_gib(standing.host.total_bytes)} GiB of RAM needed, of {_gib(ram)})" if ram else ""
    return f", limited by the {standing.limited_by}{numbers if standing.limited_by == 'host' else ''}"


def _changes(changes: Mapping[str, Any]) -> str:
    """The changes in the words of a job."""
    return ", ".join(f"{key}: {_value(value)}" for key, value in plain(changes).items())


def _value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return ",".join(value) or "none" if isinstance(value, list) else f"{value:,}" if isinstance(value, int) else value


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:,.2f}"
