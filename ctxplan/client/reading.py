"""An answer's JSON as the estimator's own types, so that code reads the same whether it asks here or over HTTP.

Keys that a later service adds are passed over; one that is missing is an error. What JSON does not carry (the rows of
phases other than the peak's, and the name of the peak's instant) is empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from estimator import RULES, Bytes, Estimate, HostBytes, Job, MaxContext, Phase, parse_job


def estimate_from_json(document: Mapping[str, Any]) -> Estimate:
    """The estimate that `Estimate.to_json` wrote: writing it again gives the same document.

    Raises:
        KeyError, TypeError: a key is missing or holds another type. JobError: its job is none.
    """
    rows = tuple((term["name"], term["bytes"], term["formula"], term["source"]) for term in document["terms"])
    peak = Phase(document["peak_phase"], document["peak_allocated_bytes"]["expected"], rows)
    return Estimate(
        peak_allocated_bytes=_bytes(document["peak_allocated_bytes"]),
        peak_reserved_bytes=_bytes(document["peak_reserved_bytes"]),
        peak_device_bytes=_bytes(document["peak_device_bytes"]),
        host_bytes=_host_bytes(document["host_bytes"]),
        usable_bytes=document["usable_bytes"],
        needed_bytes=_bytes(document["needed_bytes"]),
        room_bytes=document["room_bytes"],
        phases=tuple(_phase(phase, peak) for phase in document["phases"]),
        peak=peak,
        execution_path=document["execution_path"],
        verdict=document["verdict"],
        confidence=document["confidence"],
        limited_by=document["limited_by"],
        calibration=dict(document["calibration"]),
        evidence=document["evidence"],
        rope=dict(document["rope"]),
        regime=dict(document["regime"]),
        assumptions=tuple(document["assumptions"]),
        job=_job(document["job"]),
    )


def max_context_from_json(document: Mapping[str, Any]) -> MaxContext:
    """The answer that `MaxContext.to_json` wrote; errors are those of `estimate_from_json`."""
    lengths, at_safe = document["max_seq_length"], document["at_safe"]
    return MaxContext(
        expected=lengths["expected"],
        safe=lengths["safe"],
        limited_by=document["limited_by"],
        does_not_fit=tuple((some["first"], some["last"]) for some in document["does_not_fit"]),
        not_safe=tuple((some["first"], some["last"]) for some in document["not_safe"]),
        estimate=None if at_safe is None else estimate_from_json(at_safe),
        assumptions=tuple(document["assumptions"]),
        job=_job(document["job"]),
    )


def _job(document: Mapping[str, Any]) -> Job:
    return parse_job({key: value for key, value in document.items() if key in RULES})


def _phase(document: Mapping[str, Any], peak: Phase) -> Phase:
    is_peak = document["phase"] == peak.phase
    return peak if is_peak else Phase(document["phase"], document["allocated_bytes"], ())


def _bytes(document: Mapping[str, Any]) -> Bytes:
    return Bytes(document["expected"], document["upper"])


def _host_bytes(document: Mapping[str, Any]) -> HostBytes:
    return HostBytes(document["expected"], document["pinned"], document["pageable"])
