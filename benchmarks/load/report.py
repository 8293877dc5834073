"""The table of a trial, printed and in the manual."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from benchmarks.load.drive import Answered
from benchmarks.load.run import (
    GROWTH_BYTES,
    HELD,
    P99_SECONDS,
    RECOVERED_SECONDS,
    SHED,
    TOO_MUCH,
    Trial,
    quantile,
)
from benchmarks.load.traffic import ESTIMATE, SHARES

MANUAL = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
BLOCK = re.compile(r"<!-- load -->\n(.*?)<!-- /load -->", re.DOTALL)
LEAST_MINUTES = 10
NOT_ANSWERED = "not answered"
GROWTH = "growth, last fifth against the first, MiB"
REFUSED = f"at {TOO_MUCH:.0%}: refused with 429 or 503"
RECOVERED = "seconds until an estimate is as quick as before"


def table(trial: Trial) -> str:
    """What was asked and how it went."""
    served = [one for one in trial.flood if one.status == 200]
    sent = [replace(one, seconds=one.seconds - one.late) for one in served]
    shed = sum(one.status in SHED for one in trial.flood)
    lines = [
        f"| at most, answers a second | {trial.maximum:,.0f} |",
        f"| minutes at {HELD:.0%} | {trial.seconds / 60:.1f} |",
        f"| requests | {len(trial.held):,} |",
        f"| {NOT_ANSWERED} | {trial.errors:,} |",
        f"| memory at the start, MiB | {trial.resident[0] / 2**20:,.0f} |",
        f"| {GROWTH} | {trial.growth_bytes / 2**20:,.1f} |",
        f"| at {TOO_MUCH:.0%}: answered a second | {len(served) / _seconds(trial.flood):,.0f} |",
        f"| {REFUSED} | {shed / max(1, len(trial.flood)):.0%} |",
        f"| at {TOO_MUCH:.0%}: 99 % of the answered estimates within, ms | {_ms(served, 0.99)} |",
        f"| the same, from when they could be sent, ms | {_ms(sent, 0.99)} |",
        f"| {RECOVERED} | {trial.recovery_seconds:.2f} |",
    ]
    kinds = [
        f"| `{kind}` | {sum(one.kind == kind for one in trial.held):,} | "
        + " | ".join(_ms(trial.held, share, kind) for share in (0.5, 0.99, 1))
        + " |"
        for kind in SHARES
    ]
    heads = ["| | |", "|---|---:|"]
    times = [f"| at {HELD:.0%} | requests | half within, ms | 99 % | all |", "|---|---:|---:|---:|---:|"]
    return "\n".join([*heads, *lines, "", *times, *kinds])


def write(trial: Trial) -> None:
    """Put the table into the manual."""
    text = MANUAL.read_text(encoding="utf-8")
    MANUAL.write_text(BLOCK.sub(lambda _: f"<!-- load -->\n{table(trial)}\n<!-- /load -->", text), encoding="utf-8")


def check() -> list[str]:
    """What is wrong with the table in the manual: rows that are missing, too short a time, or a promise broken."""
    found = BLOCK.search(MANUAL.read_text(encoding="utf-8"))
    rows = dict(re.findall(r"^\| (\S.*?) \| (.+) \|$", found[1] if found else "", re.MULTILINE))
    try:
        minutes = float(rows[f"minutes at {HELD:.0%}"])
        errors = int(rows[NOT_ANSWERED].replace(",", ""))
        p99 = float(rows[f"`{ESTIMATE}`"].split(" | ")[2])
        growth, refused, recovered = (float(rows[name].rstrip("%")) for name in (GROWTH, REFUSED, RECOVERED))
    except (KeyError, ValueError, IndexError) as error:
        return [f"docs/operations.md has no table of a trial ({error}): make load"]
    wrong = [
        (minutes < LEAST_MINUTES, f"{minutes} minutes are too short a trial"),
        (errors > 0, f"{errors} requests were not answered"),
        (p99 >= P99_SECONDS * 1000, f"99 % of the estimates took up to {p99} ms"),
        (growth * 2**20 > GROWTH_BYTES, f"memory grew by {growth} MiB"),
        (refused == 0, f"at {TOO_MUCH:.0%} nothing was refused"),
        (recovered > RECOVERED_SECONDS, f"it recovered after {recovered} s"),
    ]
    return [what for is_wrong, what in wrong if is_wrong]


def _ms(found: Sequence[Answered], share: float, kind: str = ESTIMATE) -> str:
    return f"{quantile([one.seconds for one in found if one.kind == kind], share) * 1000:,.1f}"


def _seconds(found: Sequence[Answered]) -> float:
    """From when the first was due until the last was answered."""
    return max(one.at + one.seconds for one in found) - min(one.at for one in found) if len(found) > 1 else 1.0
