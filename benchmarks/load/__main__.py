"""``python -m benchmarks.load``: the trial on this machine; exits 1 where a promise was broken."""

from __future__ import annotations

import argparse
import sys

from benchmarks.http import SERVICE, serving
from benchmarks.load.report import check, table, write
from benchmarks.load.run import run
from benchmarks.said import said, say


def main() -> int:
    """Run, print and, where that is asked, write into the manual."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10, help="at 70 %% of the most")
    parser.add_argument("--write", action="store_true", help="the table into docs/operations.md, if all was kept")
    parser.add_argument("--check", action="store_true", help="run nothing: is the table in docs/operations.md sound?")
    arguments = parser.parse_args()
    if arguments.check:
        return said(check())
    with serving(SERVICE) as (port, pid):
        found = run(port, pid, seconds=60 * arguments.minutes, say=say)
    print(table(found))
    if arguments.write and not found.broken:
        write(found)
    return said(found.broken)


if __name__ == "__main__":
    sys.exit(main())
