"""The table of a run, printed and in the manual."""

from __future__ import annotations

import re
from collections.abc import Sequence

from benchmarks.chaos.plan import OF_POSTGRESQL, OF_SQLITE
from benchmarks.chaos.process import ROOT
from benchmarks.chaos.verdict import CAME_OF_IT, FINDINGS, JOBS_DONE, NAMES, REAL, Verdict

MANUAL = ROOT / "docs" / "reliability.md"
BLOCK = re.compile(r"<!-- chaos -->\n(.*?)<!-- /chaos -->", re.DOTALL)
LEAST_JOBS, LEAST_REAL = 200, 10


def table(verdicts: Sequence[Verdict]) -> str:
    """What happened and what came of it, a column for each database."""
    heads = [verdict.database for verdict in verdicts]
    lines = [f"| | {' | '.join(heads)} |", "|---|" + "---:|" * len(heads)]
    for name in verdicts[0].figures:
        cells = [_cell(verdict, name) for verdict in verdicts]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def write(verdicts: Sequence[Verdict], *, seed: int) -> None:
    """Put the table into the manual."""
    text = MANUAL.read_text(encoding="utf-8")
    block = f"<!-- chaos -->\nSeed {seed}:\n\n{table(verdicts)}\n<!-- /chaos -->"
    MANUAL.write_text(BLOCK.sub(lambda _: block, text), encoding="utf-8")


def check() -> list[str]:
    """What is wrong with the table in the manual: rows that are missing, too little that happened, or a finding."""
    found = BLOCK.search(MANUAL.read_text(encoding="utf-8"))
    rows = {
        name: cells.split(" | ")
        for name, cells in re.findall(r"^\| (\S.*?) \| ([\d,–| ]+) \|$", found[1] if found else "", re.MULTILINE)
    }
    if any(len(cells) != 2 for cells in rows.values()) or not rows:
        return ["docs/reliability.md has no table of a run on both databases: make chaos"]
    wanted = {JOBS_DONE: LEAST_JOBS, REAL: LEAST_REAL, **dict.fromkeys((*CAME_OF_IT, *NAMES.values()), 1)}
    wrong = [
        f"{name}: {shown}, and {least} is the least"
        for name, least in wanted.items()
        for column, shown in enumerate(rows.get(name, ["0", "0"]))
        if not (shown == NEVER and name in CANNOT[column]) and _number(shown) < least
    ]
    return wrong + [f"{FINDINGS}: {shown}" for shown in rows.get(FINDINGS, ["none told"]) if shown != "0"]


NEVER = "–"
CANNOT = (frozenset(NAMES[kind] for kind in OF_POSTGRESQL), frozenset(NAMES[kind] for kind in OF_SQLITE))
"""What cannot happen on SQLite, and on PostgreSQL."""


def _cell(verdict: Verdict, name: str) -> str:
    return NEVER if name in CANNOT[verdict.database != "SQLite"] else f"{verdict.figures[name]:,}"


def _number(shown: str) -> int:
    digits = shown.replace(",", "")
    return int(digits) if digits.isdecimal() else 0
