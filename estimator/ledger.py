"""The live-set ledger: named tensors alive at one instant, and the instants whose sum can be the peak."""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter
from typing import NamedTuple

Row = tuple[str, int, str, str]
"""One live tensor, or some of a kind: (name, bytes, formula, source), the fields of `estimator.estimate.Term`.

Plain tuples, since one estimate makes a hundred of them and names only those of the peak to its reader.
"""

LiveSet = list[Row]

NAME, BYTES = 0, 1

_bytes = itemgetter(BYTES)


class Instant(NamedTuple):
    """Everything alive at one moment of a phase, beside what is always there.

    Attributes:
        phase: forward, loss, backward, optimizer, evaluation, prefill or decode. name: which moment of it.
    """

    phase: str
    name: str
    rows: LiveSet


def total(rows: Iterable[Row]) -> int:
    """Sum of the rows' bytes."""
    return sum(map(_bytes, rows))


def without(rows: LiveSet, *names: str) -> LiveSet:
    """The rows that are not called by any of ``names``."""
    return [row for row in rows if row[NAME] not in names]
