"""What tests look at in an answer."""

from __future__ import annotations

from estimator import Estimate


def terms(answer: Estimate, phase: str) -> dict[str, int]:
    """The bytes of each term of a phase."""
    return {term.name: term.bytes for p in answer.phases if p.phase == phase for term in p.terms}
