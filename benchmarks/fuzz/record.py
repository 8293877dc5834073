"""What came of the input."""

from __future__ import annotations

import hashlib
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

GROWTH_BYTES = 48 * 2**20
"""What a process may have grown by between the first fifth of a run and its end: caches fill, and are bounded."""


@dataclass(slots=True, kw_only=True)
class Record:
    """What came of one kind of input.

    Attributes:
        outcomes: how often what came out. faults: what must not be, by what it is, with an example each.
        first_rss_bytes: resident memory (`benchmarks.memory`) after the first fifth; last_rss_bytes: at the end.
        slowest_seconds: of any single input.
    """

    what: str
    outcomes: Counter[str] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)
    first_rss_bytes: int = 0
    last_rss_bytes: int = 0
    slowest_seconds: float = 0.0

    @property
    def count(self) -> int:
        return self.outcomes.total()

    @property
    def grown_bytes(self) -> int:
        return self.last_rss_bytes - self.first_rss_bytes

    @property
    def passed(self) -> bool:
        return not self.faults and self.grown_bytes <= GROWTH_BYTES

    def fault(self, kind: str, example: str, given: bytes, keep: Path | None) -> None:
        """Note what must not be; the input is kept in a file of ``keep``, the first one of its kind."""
        if kind not in self.faults:
            self.faults[kind] = example
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{self.what.replace(' ', '-')}-{hashlib.sha256(given).hexdigest()[:12]}").write_bytes(given)


def where(error: BaseException) -> str:
    """An error by its type and the last line that it came through: one fault, however many inputs show it."""
    frames = traceback.extract_tb(error.__traceback__)
    last = frames[-1] if frames else None
    return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}" if last else type(error).__name__
