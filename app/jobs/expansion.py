"""Jobs of the queue from what a request asks to be measured, each with what it needs of a worker."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from app.queue import InvalidSubmission, JobRequest
from app.queue.requests import DEFAULT_ATTEMPTS, MAX_MODEL
from ctxplan import Planner
from estimator.device import find_device
from estimator.errors import CtxplanError
from estimator.rules import Choice

if TYPE_CHECKING:
    from probes.fitting.asking import Point

DESIGN_SECONDS = 300.0


def expand(body: Mapping[str, Any], planner: Planner) -> tuple[JobRequest, ...]:
    """The jobs of a submission (`app.jobs.reading.read_submission`). Looks models up; to be called in a thread.

    Raises:
        CtxplanError: a point is none, or its job cannot be planned; the key says which. Nothing is queued that no
            estimate could be held against.
    """
    if "calibrate" in body:
        keyed = [("calibrate", point) for point in _designed(body, planner)]
    elif "point" in body:
        keyed = list(_read(body["point"], "point"))
    else:
        keyed = [pair for number, one in enumerate(body["points"]) for pair in _read(one, f"points[{number}]")]
    return tuple(_request(point, key, body, planner) for key, point in keyed)


def model_of(body: Mapping[str, Any]) -> str | None:
    """What the campaign of a submission is for; None where it begins none."""
    if "calibrate" not in body:
        return None
    model = body["calibrate"].get("model")
    name = model if isinstance(model, str) else f"a config of {_type_of(model)}"
    return name if name.isprintable() and 1 <= len(name) <= MAX_MODEL else "a model"


def _type_of(model: Any) -> str:
    return str(model.get("model_type", "no type"))[:80] if isinstance(model, Mapping) else "no type"


def _read(data: Any, key: str) -> list[tuple[str, Point]]:
    from probes.fitting.asking import read_points

    return [(key, point) for point in read_points(data, key)]


def _designed(body: Mapping[str, Any], planner: Planner) -> list[Point]:
    from probes.fitting.asking import CHECKPOINTING, KINDS_OF_BATCH, designed, job_of

    job = job_of(body["calibrate"], "calibrate")
    modes = _words(body, "checkpointing", tuple(CHECKPOINTING))
    batches = _words(body, "batches", KINDS_OF_BATCH)
    try:
        architecture = planner.facts(job.model).architecture
        return designed(
            job,
            architecture,
            planner.calibration,
            checkpointing=modes,
            batches=batches,
            time_limit=body.get("time_limit_seconds", DESIGN_SECONDS),
        )
    except CtxplanError as error:
        raise _below(error, "calibrate") from None


def _words(body: Mapping[str, Any], key: str, known: tuple[str, ...]) -> list[Any]:
    try:
        return [Choice(known).parse(key, word) for word in body.get(key, ())]
    except CtxplanError as error:
        raise InvalidSubmission(error.message, key=error.key, allowed=error.allowed) from None


def _request(point: Point, key: str, body: Mapping[str, Any], planner: Planner) -> JobRequest:
    try:
        needed = planner.estimate(point.job, trainer=point.trainer).peak_device_bytes.expected
        device = find_device(point.job.gpu)
    except CtxplanError as error:
        raise _below(error, key) from None
    requires = body.get("requires", {})
    return JobRequest(
        point=point.to_json(),
        gpu=_gpu(requires, None if point.cap_bytes else device.name),
        min_total_bytes=requires.get("min_memory_bytes", _least(point, needed, device.total_bytes)),
        versions={**_asked_versions(point), **requires.get("versions", {})},
        priority=body.get("priority", 0),
        max_attempts=body.get("max_attempts", DEFAULT_ATTEMPTS),
        expires_in=timedelta(seconds=body["expires_in_seconds"]) if "expires_in_seconds" in body else None,
    )


def _gpu(requires: Mapping[str, Any], default: str | None) -> str | None:
    """The card that was asked for, by the catalogue's name; null for any, and else the job's own."""
    from probes.fitting.asking import card_of

    if "gpu" not in requires:
        return default
    return None if requires["gpu"] is None else card_of(requires["gpu"])


def _least(point: Point, needed_bytes: int, total_bytes: int) -> int:
    """What the card has at least: what the point is expected to take, with a card that another stands in for as a
    whole. Never more than the job's own card: that it does not fit there is what is then measured."""
    return point.cap_bytes or min(needed_bytes, total_bytes)


def _asked_versions(point: Point) -> dict[str, str]:
    return {name: version for name, version in point.job.versions.items() if version is not None}


def _below(error: CtxplanError, key: str) -> CtxplanError:
    """The error with the place of its key in the request."""
    if error.key != key and not (error.key or "").startswith(f"{key}."):
        error.key = f"{key}.{error.key}" if error.key else key
    return error
