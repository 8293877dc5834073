"""What a queue of points asks: which points a request names, whether a measurement is of its point, and whether it is
to be believed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from estimator import Job, parse_job
from estimator.architecture import Architecture
from estimator.calibration.document import Calibration
from estimator.device import find_device
from estimator.errors import CtxplanError
from probes.comparison import PLANNER
from probes.errors import EvidenceError as EvidenceError
from probes.errors import FitError as FitError
from probes.errors import PointError
from probes.fitting.compare import observed
from probes.fitting.design import BATCHES, Batch, Checkpointing, design, variants
from probes.fitting.drift import CONFIDENCE, margin_of, residual_of
from probes.fitting.judge import judge
from probes.measurement import Measurement as Measurement
from probes.points import Point as Point
from probes.points import parse_points

CHECKPOINTING: Mapping[str, Checkpointing] = {"unsloth": "unsloth", "true": True, "false": False}
KINDS_OF_BATCH = tuple(BATCHES)
MOST_OFF = 0.25
"""A peak that is farther than that from what is expected, either way, is not one of the job that was asked for: the
largest on a family that no fit had seen is below 4 % (docs/accuracy.md)."""
MOST_ABOVE = 0.10
"""As far above the bound at 99 % a peak is believed: drift of a new version, which a fit is to learn."""
VOID = frozenset({"neighbour", "wrong_gpu"})
"""Outcomes that say nothing of the point."""


def read_points(data: Any, key: str) -> list[Point]:
    """The points of one JSON value, which may stand for several lengths. Raises CtxplanError, its key below ``key``."""
    try:
        return list(parse_points(data))
    except CtxplanError as error:
        error.key = f"{key}.{error.key}" if error.key else key
        raise


def designed(
    job: Job,
    architecture: Architecture,
    calibration: Calibration,
    *,
    checkpointing: Sequence[str] = (),
    batches: Sequence[Batch] = (),
    time_limit: float,
) -> list[Point]:
    """The points that pin a model (`probes.fitting.design`), one a length. Raises PointError where there are none."""
    jobs = variants(job, [CHECKPOINTING[one] for one in checkpointing], batches)
    found = design(jobs, architecture, calibration=calibration, time_limit=time_limit)
    return [point for data in found.points() for point in parse_points(data)]


def differences(measured: Measurement, point: Mapping[str, Any]) -> Iterator[str]:
    """The keys in which a measurement is not of a point (`probes.points.Point.to_json`); none where it is."""
    told = {
        "job": measured.job,
        "trainer": measured.trainer,
        "steps_asked": measured.steps_asked,
        "sample_lengths": list(measured.sample_lengths),
        "environment_asked": dict(measured.environment_asked),
    }
    names = {"steps_asked": "steps", "environment_asked": "environment"}
    for key, value in told.items():
        if value != point[names.get(key, key)]:
            yield key
    cap = measured.cap.total_bytes if measured.cap else None
    if cap != point["cap_bytes"] and (cap is not None or measured.outcome in ("ok", "out_of_memory")):
        yield "cap.total_bytes"


def point_of(measured: Measurement) -> Point:
    """The point that a measurement says it is of. Raises PointError where its digest is that of another."""
    data = {
        "job": measured.job,
        "trainer": measured.trainer,
        "steps": measured.steps_asked,
        "sample_lengths": list(measured.sample_lengths),
        "environment": dict(measured.environment_asked),
        "cap_bytes": measured.cap.total_bytes if measured.cap else None,
    }
    point = parse_points(data)[0]
    if point.digest != measured.point:
        raise PointError("is not the digest of the job and of how it was run", key="point", allowed=point.digest)
    return point


def is_planned_here(measured: Measurement) -> bool:
    """Whether the model of a measurement is known without asking the Hub, so that it can be judged and fitted."""
    try:
        PLANNER.facts(measured.job["model"])
    except CtxplanError:
        return False
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How a measured peak stands to its prediction: measured over expected less one, and the bound's margin at 99 %."""

    error: float
    margin: float


def standing(measured: Measurement, calibration: Calibration) -> Standing | None:
    """None where there is nothing to compare: it did not end well on a GPU, or on another path than the planned one."""
    if not is_planned_here(measured):
        return None
    judged = judge(observed([measured]), calibration, confidence=CONFIDENCE)
    return Standing(error=residual_of(judged[0]), margin=margin_of(judged[0])) if judged else None


def doubt(measured: Measurement, calibration: Calibration, *, gpu: str | None) -> str | None:
    """Why no fit is to read a measurement, in a line; None where nothing speaks against it.

    Args:
        gpu: catalogue name of the card that was asked for; None where any was.
    """
    if measured.outcome in VOID:
        return f"the point is void: {measured.outcome}"
    ran_on = card_of(measured.gpu) if measured.gpu else None
    if gpu is not None and ran_on is not None and ran_on != gpu:
        return f"it ran on {ran_on}, and {gpu} was asked for"
    found = standing(measured, calibration)
    if found is None:
        return None
    if abs(found.error) > MOST_OFF:
        return f"the peak is {found.error:+.1%} off what {calibration.id} expects, more than {MOST_OFF:.0%}"
    if (1 + found.error) > (1 + found.margin) * (1 + MOST_ABOVE):
        return f"the peak is {found.error:+.1%} off, over {MOST_ABOVE:.0%} above the bound at {CONFIDENCE:.0%}"
    return None


def card_of(name: str) -> str:
    """The catalogue's name of a card, by that or by its driver's; the name itself where it is in no catalogue."""
    try:
        return find_device(name).name
    except CtxplanError:
        return name


def job_of(data: Any, key: str) -> Job:
    """A job. Raises CtxplanError; its key is below ``key``."""
    try:
        return parse_job(data)
    except CtxplanError as error:
        error.key = f"{key}.{error.key}" if error.key else key
        raise
