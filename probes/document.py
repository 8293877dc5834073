"""Puts a measurement together: what the parent knows of a point, and the facts that the process told."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from ctxplan import __version__
from estimator import job_to_json
from probes.measurement import SCHEMA_VERSION, Measurement, Outcome, validate
from probes.points import Point
from probes.versions import installed_versions

INSTRUMENT = f"ctxplan {__version__}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is the same for all points of a process: the card as the driver names it, the cap, and the variables that
    were set in the process (`probes.environment.noted`), whoever asked for them."""

    gpu: str | None = None
    driver: str | None = None
    cap: Mapping[str, Any] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """How one point ended. ``facts`` are the process's own: fields of a measurement; ``killed`` is one as well."""

    outcome: Outcome
    detail: str | None = None
    killed: bool = False
    out_of_memory: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def compose(
    point: Point, result: Result, setting: Setting, *, lengths_before: tuple[int, ...] | None = (), now: datetime
) -> Measurement:
    """The measurement of a point. Facts that are none make it a crash of the process, whose detail names them."""
    known = _known(point, result, setting, lengths_before, now)
    told = {name: _finite(value) for name, value in result.facts.items() if name not in _OURS}
    if isinstance(told.get("stack"), dict):  # only this process asks the driver for its version
        told["stack"] = {**told["stack"], "driver": told["stack"].get("driver") or setting.driver}
    try:
        return validate({**known, **told})
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'document'}: {fault['msg']}" for fault in error.errors()[:5]
        )
    broken = {
        "outcome": "crashed",
        "killed": False,
        "out_of_memory": None,
        "detail": f"told what is no measurement: {faults}",
    }
    return validate({**known, **broken})


_OURS = frozenset(
    {
        "schema_version",
        "point",
        "job",
        "trainer",
        "outcome",
        "killed",
        "out_of_memory",
        "sample_lengths",
        "lengths_before",
        "steps_asked",
        "environment_asked",
        "cap",
        "environment",
        "measured_at",
        "instrument",
    }
)
"""Fields that the process does not decide."""


def _known(
    point: Point, result: Result, setting: Setting, lengths_before: tuple[int, ...] | None, now: datetime
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "point": point.digest,
        "job": job_to_json(point.job),
        "trainer": point.trainer,
        "outcome": result.outcome,
        "detail": result.detail,
        "killed": result.killed if result.outcome == "crashed" else None,
        "out_of_memory": result.out_of_memory if result.outcome == "out_of_memory" else None,
        "execution_path": None,
        "num_hidden_layers": point.job.num_hidden_layers,
        "sequence_length": point.sequence_length,
        "sample_lengths": point.sample_lengths,
        "lengths_before": lengths_before,
        "steps_asked": point.steps,
        "environment_asked": dict(point.environment),
        "gpu": setting.gpu,
        "cap": setting.cap,
        "steps": (),
        "steps_run": 0,
        "ran": {},
        "environment": dict(setting.environment),
        "stack": {**installed_versions(), "driver": setting.driver},
        "measured_at": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "instrument": INSTRUMENT,
    }


def _finite(value: Any) -> Any:
    """The value with null for NaN and infinities, which JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list) else value
