"""``python -m benchmarks.fuzz``: requests and files that nobody would send. Exits 1 where one of them did harm.

--write puts the figures into docs/security.md where none did; --check only looks whether those there are as they must
be.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from benchmarks.fuzz import report
from benchmarks.fuzz.files import fuzz_files
from benchmarks.fuzz.record import Record
from benchmarks.fuzz.requests import fuzz_requests
from benchmarks.fuzz.service import serving
from benchmarks.said import said

ROOT = Path(__file__).resolve().parents[2]


def main() -> int:
    """Fuzz, print, and say by the exit code whether nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description="Fuzz the service and its readers.")
    parser.add_argument("--requests", type=int, default=report.ENOUGH, metavar="N")
    parser.add_argument("--files", type=int, default=report.ENOUGH, metavar="N")
    parser.add_argument("--seed", type=int, default=1, metavar="N")
    parser.add_argument("--keep", type=Path, default=ROOT / "scratch" / "fuzz", help="inputs that showed a fault")
    parser.add_argument("--write", action="store_true", help="the figures into docs/security.md, if nothing was found")
    parser.add_argument("--check", action="store_true", help="only look at the figures in docs/security.md")
    asked = parser.parse_args()
    if asked.check:
        return said(report.faults_of(report.DOCUMENT.read_text(encoding="utf-8")))
    # For a library's panic, which is caught, Rust would load the symbols of all its code: tens of MiB.
    os.environ["RUST_BACKTRACE"] = "0"
    warnings.simplefilter("ignore")  # schemathesis' own, of documents that it finds hard to draw from
    files = fuzz_files(asked.files, start=asked.seed, keep=asked.keep)
    print(report.table(files), flush=True)
    with serving() as service:
        requests = fuzz_requests(service, asked.requests, start=asked.seed, keep=asked.keep)
    print(report.table(requests), flush=True)
    found = faults([*files, *requests])
    if asked.write and not found:
        report.write(report.block(files, requests, asked.seed))
    return said(found)


def faults(records: Sequence[Record]) -> list[str]:
    """What was found, with an example each."""
    found = [f"{one.what}: {kind}\n{example}" for one in records for kind, example in one.faults.items()]
    grown = [one for one in records if not one.passed and not one.faults]
    return found + [f"{one.what}: grew by {one.grown_bytes / 2**20:.0f} MiB" for one in grown]


if __name__ == "__main__":
    sys.exit(main())
