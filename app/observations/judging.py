"""What was seen of a run, held to what the active calibration expects of its job."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ctxplan import Planner
from estimator import Job
from estimator.calibration.evidence import DECISIVE
from estimator.errors import CtxplanError
from estimator.stack import MEASURED_STACK

CONFIDENCE = 0.99
"""That of drift anywhere else: `probes.fitting.drift`."""
GIB = 2**30
MAX_REASON = 1000

State = Literal["within", "beyond", "unjudged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """How an observation stands.

    Attributes:
        drift: what lies beyond the bound, for people; None where nothing does. seen_bytes: allocated at most, or what
            it would have been where the memory ended; None where nobody could tell. expected_bytes, bound_bytes: of
            the job, with what the run trained beside it. calibration: the id of the one that says so.
    """

    state: State
    drift: str | None
    seen_bytes: int | None
    expected_bytes: int
    bound_bytes: int
    calibration: str


def judge(observation: Mapping[str, Any], planner: Planner, *, known: Planner) -> Judged:
    """Judge an observation as `app.observations.reading` gives it. To be called in a thread.

    Args:
        planner: answers with the active calibration. known: knows the models that need no look-up. A run of any other
            is held to what its own plan said.
    """
    expected, bound, calibration = _planned(observation, planner, known)
    beside = observation.get("unplanned_bytes", 0)
    expected, bound = max(0, expected + beside), bound + max(0, beside)
    seen = seen_bytes(observation)
    is_beyond = seen is not None and seen > bound
    return Judged(
        state="unjudged" if seen is None else "beyond" if is_beyond else "within",
        drift=_drift(observation, seen, expected, bound) if seen is not None and is_beyond else None,
        seen_bytes=seen,
        expected_bytes=expected,
        bound_bytes=bound,
        calibration=calibration,
    )


def seen_bytes(observation: Mapping[str, Any]) -> int | None:
    """What the run took, bytes allocated; where its memory ended, with what it still asked for then."""
    peaks, allocator = observation.get("peaks") or {}, observation.get("allocator") or {}
    found = [peaks.get("allocated_bytes")]
    if allocator.get("allocated_bytes") is not None and allocator.get("tried_bytes") is not None:
        found.append(allocator["allocated_bytes"] + allocator["tried_bytes"])
    return max((size for size in found if size is not None), default=None)


def _planned(observation: Mapping[str, Any], planner: Planner, known: Planner) -> tuple[int, int, str]:
    job: Job = observation["job"]
    try:
        facts = known.facts(job.model)
        estimate = planner.estimate(replace(job, confidence=CONFIDENCE), facts)
    except CtxplanError:
        stated = observation["expected"]
        return stated["expected"], stated["upper"], observation["calibration"]
    peak = estimate.peak_allocated_bytes
    return peak.expected, peak.upper, estimate.calibration["id"]


def _drift(observation: Mapping[str, Any], seen: int, expected: int, bound: int) -> str:
    what = "the memory ended at" if observation["outcome"] == "out_of_memory" else "the run took"
    more = f", {seen / expected - 1:.1%} more than" if expected else ", more than"
    said = f"{what} {_gib(seen)} GiB{more} the {_gib(expected)} that were expected (bound {_gib(bound)})"
    changed = _changed(observation.get("versions", {}))
    return f"{said}, with {', '.join(changed)}"[:MAX_REASON] if changed else said


def _changed(versions: Mapping[str, str | None]) -> list[str]:
    """Packages that decide memory in another version than the measured one."""
    found = ((name, (versions.get(name) or "").partition("+")[0]) for name in DECISIVE)
    return [
        f"{name} {have} for {MEASURED_STACK[name]}" for name, have in found if have not in ("", MEASURED_STACK[name])
    ]


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.2f}"
