"""The answer: what a job needs, term by term, and whether it fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from estimator.job import Job, job_to_json

Verdict = Literal["fits", "does_not_fit", "uncertain"]
Evidence = Literal["inside", "outside"]


class Term(NamedTuple):
    """Some bytes that are alive at one instant, by name.

    ``formula`` is in the symbols of `estimator.architecture`; ``source`` names the release's file and function, or the
    measurement, that it was read from.
    """

    name: str
    bytes: int
    formula: str
    source: str


class Bytes(NamedTuple):
    """An expected number of bytes, and the bound that holds at the asked confidence."""

    expected: int
    upper: int

    def to_json(self) -> dict[str, int]:
        """As `_asdict`, in a fifth of its time."""
        return {"expected": self.expected, "upper": self.upper}


class HostBytes(NamedTuple):
    """Host RAM: pinned blocks (as the allocator rounds them), and pageable."""

    expected: int
    pinned: int
    pageable: int


class Phase(NamedTuple):
    """The largest sum of live bytes in one part of the run; ``rows`` are what it sums (`estimator.ledger.Row`), and
    ``instant`` is the moment of it.
    """

    phase: str
    allocated_bytes: int
    rows: tuple[tuple[str, int, str, str], ...]
    instant: str = ""

    @property
    def terms(self) -> tuple[Term, ...]:
        """The rows by name, those without bytes left out."""
        return tuple(Term(*row) for row in self.rows if row[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a job needs on its device. The terms of the peak phase sum to ``peak_allocated_bytes.expected`` exactly.

    Attributes:
        peak_reserved_bytes: what torch keeps, fragmentation included while the card has room for it.
        needed_bytes: what torch must be able to reserve for the peak, when the allocator gives back all that it can;
            the verdict compares it with room_bytes, what the card leaves to torch beside context, kernels and
            managed memory.
        usable_bytes: the card's total less the context.
    """

    peak_allocated_bytes: Bytes
    peak_reserved_bytes: Bytes
    peak_device_bytes: Bytes
    host_bytes: HostBytes
    usable_bytes: int
    needed_bytes: Bytes
    room_bytes: int
    phases: tuple[Phase, ...]
    peak: Phase
    execution_path: str
    verdict: Verdict
    confidence: float
    limited_by: str
    calibration: dict[str, Any]
    evidence: Evidence
    rope: dict[str, Any]
    regime: dict[str, Any]
    assumptions: tuple[str, ...]
    job: Job

    @property
    def peak_phase(self) -> str:
        """Name of the phase with the largest sum."""
        return self.peak.phase

    @property
    def terms(self) -> tuple[Term, ...]:
        """The tensors alive at the peak, those without bytes left out."""
        return self.peak.terms

    def to_json(self) -> dict[str, Any]:
        """The estimate as the contract writes it, in plain JSON values."""
        return {
            "peak_allocated_bytes": self.peak_allocated_bytes.to_json(),
            "peak_reserved_bytes": self.peak_reserved_bytes.to_json(),
            "peak_device_bytes": self.peak_device_bytes.to_json(),
            "host_bytes": self.host_bytes._asdict(),
            "usable_bytes": self.usable_bytes,
            "needed_bytes": self.needed_bytes.to_json(),
            "room_bytes": self.room_bytes,
            "peak_phase": self.peak_phase,
            "phases": [{"phase": p.phase, "allocated_bytes": p.allocated_bytes} for p in self.phases],
            "terms": [{"name": n, "bytes": b, "formula": f, "source": s} for n, b, f, s in self.peak.rows if b],
            "execution_path": self.execution_path,
            "verdict": self.verdict,
            "confidence": self.confidence,
            "limited_by": self.limited_by,
            "calibration": self.calibration,
            "evidence": self.evidence,
            "rope": self.rope,
            "regime": self.regime,
            "assumptions": list(self.assumptions),
            "job": job_to_json(self.job),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxContext:
    """The longest context of a job, and what limits it.

    Attributes:
        expected: the largest max_seq_length that is not ``does_not_fit``; 0 where none is.
        safe: the largest n whose verdict is ``fits`` while n + 1 is not; 0 where none is.
        does_not_fit: ranges [first, last] of lengths below ``expected`` that do not fit (a regime switch), tokens.
        not_safe: ranges of lengths below ``safe`` that do not certainly fit.
    """

    expected: int
    safe: int
    limited_by: str
    does_not_fit: tuple[tuple[int, int], ...]
    not_safe: tuple[tuple[int, int], ...]
    estimate: Estimate | None
    assumptions: tuple[str, ...]
    job: Job

    def to_json(self) -> dict[str, Any]:
        """The answer as the contract writes it, in plain JSON values."""
        return {
            "max_seq_length": {"expected": self.expected, "safe": self.safe},
            "limited_by": self.limited_by,
            "does_not_fit": [{"first": a, "last": b} for a, b in self.does_not_fit],
            "not_safe": [{"first": a, "last": b} for a, b in self.not_safe],
            "at_safe": self.estimate.to_json() if self.estimate else None,
            "assumptions": list(self.assumptions),
            "job": job_to_json(self.job),
        }
