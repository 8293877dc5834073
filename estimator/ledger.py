"""The live-set ledger: named tensors alive at one instant, and the instants whose sum can be the peak."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from estimator.estimate import Term

LiveSet = list[Term]


class Instant(NamedTuple):
    """Everything alive at one moment of a phase, beside what is always there.

    Attributes:
        phase: forward, loss, backward, optimizer, evaluation, prefill or decode. name: which moment of it.
    """

    phase: str
    name: str
    terms: LiveSet


def total(terms: Iterable[Term]) -> int:
    """Sum of the terms' bytes."""
    return sum([term[1] for term in terms])
