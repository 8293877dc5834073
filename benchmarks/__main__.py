"""``python -m benchmarks``: every promise about speed, measured here and now, with its limit. Exits 1 where
one is broken."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from benchmarks.http import http_results
from benchmarks.library import library_results
from benchmarks.queue import queue_results
from benchmarks.results import Result
from benchmarks.tokens import tokens_results


def main() -> int:
    """Measure, print, and say by the exit code whether every promise held."""
    results = [*library_results(), *http_results(), *tokens_results(), *queue_results()]
    print(table(results))
    return 0 if all(result.passed for result in results) else 1


def table(results: Iterable[Result]) -> str:
    """The results as lines of at most 80 columns."""
    lines = [f"{'what':<44} {'measured':>12} {'limit':>12}", "-" * 78]
    for result in results:
        limit = result.limit_text if result.limit is not None else ""
        mark = "" if result.limit is None else "ok" if result.passed else "FAIL"
        lines.append(f"{result.what:<44} {result.text:>12} {limit:>12}  {mark}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
