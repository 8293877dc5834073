"""``python -m benchmarks.claims``: how quickly jobs are claimed (`benchmarks.queue`), several times on each database;
exits 1 where a promise was broken."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import re
import sqlite3
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import sqlalchemy
from sqlalchemy import text

from app.database import Database
from benchmarks.queue import CLAIMS, P99_MILLISECONDS, PAGE_MILLISECONDS, PER_SECOND, WAITING, database_url, measure
from benchmarks.said import said, say

MANUAL = Path(__file__).resolve().parents[1] / "docs" / "reliability.md"
BLOCK = re.compile(r"<!-- claims -->\n(.*?)<!-- /claims -->", re.DOTALL)
DATABASES = ("SQLite", "PostgreSQL")
ROUNDS, LEAST_ROUNDS = 7, 5
HEADS = ("claims a second", "99th percentile, ms", "a page of 100 of 20,000 jobs, ms")


class Round(NamedTuple):
    """What one database did once: claims a second, the slowest of a hundred of them, and a page of the listing."""

    per_second: float
    p99_milliseconds: float
    page_milliseconds: float


def main() -> int:
    """Measure, print and, where that is asked, write into the manual."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.claims", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="on each database, in turns")
    parser.add_argument("--write", action="store_true", help="the table into docs/reliability.md, if all was kept")
    parser.add_argument("--check", action="store_true", help="run nothing: is the table in docs/reliability.md sound?")
    arguments = parser.parse_args()
    if arguments.check:
        return said(check(MANUAL.read_text(encoding="utf-8")))
    found: dict[str, list[Round]] = {name: [] for name in DATABASES}
    for _ in range(arguments.rounds):
        for name in DATABASES:
            found[name].append(run(name))
            say(f"{name}: {found[name][-1].per_second:.0f} claims a second")
    written = block(found, versions())
    print(written)
    wrong = check(f"<!-- claims -->\n{written}<!-- /claims -->")
    if arguments.write and not wrong:
        page = MANUAL.read_text(encoding="utf-8")
        MANUAL.write_text(BLOCK.sub(lambda _: f"<!-- claims -->\n{written}<!-- /claims -->", page), encoding="utf-8")
    return said(wrong)


def run(name: str) -> Round:
    """One round, on a new database."""
    with database_url(name) as url:
        claims, page = asyncio.run(measure(url, waiting=WAITING, claims=CLAIMS))
    return Round(claims.per_second, claims.p99_milliseconds, page)


def versions() -> str:
    """Of all that a round stands on."""

    async def of_postgresql(url: str) -> str:
        database = Database(url)
        try:
            async with database.read() as connection:
                return str((await connection.execute(text("SHOW server_version"))).scalar_one()).split()[0]
        finally:
            await database.dispose()

    with database_url("PostgreSQL") as url:
        postgresql = asyncio.run(of_postgresql(url))
    named = (
        f"Python {platform.python_version()}",
        f"SQLAlchemy {sqlalchemy.__version__}",
        f"SQLite {sqlite3.sqlite_version}",
        f"PostgreSQL {postgresql}",
        f"{len(os.sched_getaffinity(0))} cores",
    )
    return ", ".join(named)


def block(found: Mapping[str, Sequence[Round]], on: str) -> str:
    """What stands in the manual: of each number the least and the most of all rounds."""
    lines = [f"| | {' | '.join(HEADS)} |", "|---|" + "---:|" * len(HEADS)]
    for name, rounds in found.items():
        cells = (f"{min(values):,.0f} to {max(values):,.0f}" for values in zip(*rounds, strict=True))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    count = min(len(each) for each in found.values())
    return "\n".join([f"{count} rounds on each: {on}.", "", *lines, ""])


def check(page: str) -> list[str]:
    """What is wrong with the table of a page: rows that are missing, too few rounds, or a promise broken in one."""
    found = BLOCK.search(page)
    written = found[1] if found else ""
    rounds = re.match(r"(\d+) rounds", written)
    rows = {
        name: [tuple(int(one.replace(",", "")) for one in cell.split(" to ")) for cell in cells.split(" | ")]
        for name, cells in re.findall(r"^\| (\w+) \| ((?:[\d,]+ to [\d,]+(?: \| )?){3}) \|$", written, re.MULTILINE)
    }
    if set(rows) != set(DATABASES) or rounds is None:
        return ["docs/reliability.md has no table of claims on both databases: python -m benchmarks.claims --write"]
    wrong = [] if int(rounds[1]) >= LEAST_ROUNDS else [f"{rounds[1]} rounds are too few"]
    for name, (per_second, p99, listed) in rows.items():
        wrong += [f"{name}: {per_second[0]} claims a second"] if per_second[0] < PER_SECOND else []
        wrong += [f"{name}: 99 % of the claims within {p99[1]} ms"] if p99[1] > P99_MILLISECONDS else []
        wrong += [f"{name}: a page in {listed[1]} ms"] if listed[1] > PAGE_MILLISECONDS else []
    return wrong


if __name__ == "__main__":
    sys.exit(main())
