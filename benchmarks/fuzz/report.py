"""What the fuzzers found, as a table: for a terminal, and between the marks of docs/security.md."""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

from benchmarks.fuzz.record import GROWTH_BYTES, Record

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "security.md"
BLOCK = re.compile(r"<!-- fuzz -->\n(.*?)<!-- /fuzz -->", re.DOTALL)
ROW = re.compile(r"^\| (?P<what>[^|]+) \| (?P<count>[\d,]+) \| (?P<outcomes>[^|]+) \| (?P<slowest>[\d.]+) ms "
                 r"\| (?P<grown>-?[\d.]+) MiB \| (?P<faults>\d+) \|$", re.MULTILINE)  # fmt: skip
ENOUGH = 50_000
"""Requests, and files."""


def table(records: Iterable[Record]) -> str:
    """As Markdown, which a terminal shows as well."""
    lines = ["| what | inputs | what came of them | slowest | growth | faults |", "|---|---:|---|---:|---:|---:|"]
    for one in records:
        outcomes = ", ".join(f"{count:,} {name}" for name, count in one.outcomes.most_common())
        grown = f"{one.grown_bytes / 2**20:.1f} MiB"
        slowest = f"{one.slowest_seconds * 1000:.0f} ms"
        lines.append(f"| {one.what} | {one.count:,} | {outcomes} | {slowest} | {grown} | {len(one.faults)} |")
    return "\n".join(lines) + "\n"


def block(files: Sequence[Record], requests: Sequence[Record], seed: int) -> str:
    """What stands between the marks."""
    return "\n".join(
        [
            f"`make fuzz`, seed {seed}: hypothesis {version('hypothesis')}, schemathesis {version('schemathesis')}, "
            f"Python {platform.python_version()}.",
            "",
            f"{sum(one.count for one in requests):,} requests:",
            "",
            table(requests),
            f"{sum(one.count for one in files):,} files:",
            "",
            table(files),
        ]
    )


def write(text: str) -> None:
    """Put it into the document."""
    document = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(BLOCK.sub(lambda _: f"<!-- fuzz -->\n{text}<!-- /fuzz -->", document), encoding="utf-8")


def faults_of(document: str) -> list[str]:
    """What is not as it must be in the committed figures."""
    found = BLOCK.search(document)
    if found is None:
        return ["docs/security.md has no figures of make fuzz"]
    said = {
        what: int(count.replace(",", "")) for count, what in re.findall(r"^([\d,]+) (requests|files):$", found[1], re.M)
    }
    rows = [match.groupdict() for match in ROW.finditer(found[1])]
    counted = sum(int(row["count"].replace(",", "")) for row in rows)
    wrong = [f"fewer than {ENOUGH:,} {what}" for what in ("requests", "files") if said.get(what, 0) < ENOUGH]
    wrong += [f"{row['what']}: {row['faults']} faults" for row in rows if int(row["faults"])]
    wrong += [f"{row['what']}: grew" for row in rows if float(row["grown"]) * 2**20 > GROWTH_BYTES]
    return wrong + (["the rows do not add up"] if counted != sum(said.values()) else [])
