"""``python -m benchmarks.chaos``: live through everything on both databases; exits 1 where a promise was broken."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.chaos.report import check, table, write
from benchmarks.chaos.run import run
from benchmarks.chaos.world import Setup
from benchmarks.said import said, say

DATABASES = ("SQLite", "PostgreSQL")


def main() -> int:
    """Run, print and, where that is asked, write into the manual."""
    arguments = _arguments()
    if arguments.check:
        return said(check())
    verdicts = []
    with _folder(arguments.keep) as folder:
        for database in arguments.database or DATABASES:
            setup = Setup(
                jobs=arguments.jobs,
                real=arguments.real,
                workers=arguments.workers,
                seed=arguments.seed,
                database=database,
            )
            place = folder / database
            place.mkdir()
            verdicts.append(run(setup, place, say))
    print(table(verdicts))
    findings = [f"{verdict.database}: {what}" for verdict in verdicts for what in verdict.findings]
    if arguments.write and not findings:
        write(verdicts, seed=arguments.seed)
    return said(findings)


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    if kept is not None:
        kept.mkdir(parents=True)
        yield kept
        return
    with tempfile.TemporaryDirectory(prefix="ctxplan-chaos-") as name:
        yield Path(name)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--real", type=int, default=14, help="of the jobs, trained in earnest on the CPU")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--database", choices=DATABASES, action="append", help="one of them, instead of both")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="what was said, and what lay on the disks")
    parser.add_argument("--write", action="store_true", help="the table into docs/reliability.md")
    parser.add_argument("--check", action="store_true", help="run nothing: is the table in docs/reliability.md sound?")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
