"""The answers and bodies of the queue's routes, as the OpenAPI document states them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from app.jobs.reading import (
    DRAINING,
    FAILURE,
    HEARTBEAT,
    LEASING,
    MEASUREMENTS,
    NEEDED_OF_WORKER,
    RELEASE,
    SUBMISSION,
    WHAT,
    object_schema,
)
from app.queue import CampaignState, EventKind, State
from app.schemas import Count


def body(schema: dict[str, Any]) -> dict[str, Any]:
    """``openapi_extra`` of a route that reads its body itself."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


SUBMISSION_BODY = body({**object_schema(SUBMISSION), "oneOf": [{"required": [key]} for key in WHAT]})
LEASING_BODY = body(object_schema(LEASING, frozenset({"worker"})))
HEARTBEAT_BODY = body(object_schema(HEARTBEAT, (NEEDED_OF_WORKER - {"id"}) | {"draining"}))
FAILURE_BODY = body(object_schema(FAILURE, frozenset({"why"})))
DRAINING_BODY = body(object_schema(DRAINING, frozenset({"draining"})))
RELEASE_BODY = body(object_schema(RELEASE))
MEASUREMENTS_BODY = body(object_schema(MEASUREMENTS, frozenset({"measurements"})))
RESULT_BODY = body({"type": "object", "description": "a measurement, as `ctxplan probe --json` prints it"})


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Requires(_Answer):
    """What a job needs of a worker; ``gpu`` null: any card."""

    gpu: str | None
    min_memory_bytes: Count
    versions: dict[str, str]


class JobAnswer(_Answer):
    """A point to be measured, and where it stands. ``failures``: what went wrong in each attempt."""

    id: int
    state: State
    campaign: int | None
    point: dict[str, Any]
    digest: str
    requires: Requires
    priority: int
    attempts: Count
    max_attempts: Count
    failures: list[dict[str, Any]]
    worker: str | None
    leased_at: str | None
    lease_expires_at: str | None
    created_at: str
    expires_at: str | None
    finished_at: str | None


class JobEventAnswer(_Answer):
    """One thing that happened to a job."""

    seq: int
    at: str
    kind: EventKind
    epoch: Count
    worker: str | None
    detail: dict[str, Any]


class JobWithHistory(JobAnswer):
    """A job with all that has happened to it, in order."""

    events: list[JobEventAnswer]


class JobListing(_Answer):
    """A page of jobs, newest first; ``next`` is the cursor of the one after it, null on the last."""

    items: list[JobAnswer]
    next: str | None


class SubmittedAnswer(_Answer):
    """The jobs of a submission, in its order, and the campaign that they are of."""

    items: list[JobAnswer]
    campaign: int | None


class LeaseAnswer(_Answer):
    """A job in a worker's hands. ``token`` is the lease's secret, and given nowhere else."""

    job: int
    epoch: int
    token: str
    expires_in_seconds: Count
    renew_after_seconds: Count
    point: dict[str, Any]
    digest: str
    time_limit_seconds: Count
    attempt: int
    max_attempts: int


class RenewedAnswer(_Answer):
    """How long the lease holds now. ``cancelled``: the job is wanted no more, and its probe is to be stopped."""

    expires_in_seconds: Count
    renew_after_seconds: Count
    cancelled: bool


class AcceptedAnswer(_Answer):
    """A result that counts. ``quarantined``: why no fit reads it, null where one may."""

    measurement: int
    state: Literal["accepted", "quarantined"]
    quarantined: str | None


class StateAnswer(_Answer):
    """Where the job stands now."""

    state: State


class WorkerAnswer(_Answer):
    """A worker as it last described itself. ``draining``: it is given no further job."""

    id: str
    name: str
    gpu: str
    total_bytes: Count
    versions: dict[str, str | None]
    last_seen_at: str
    draining: bool


class HeartbeatAnswer(_Answer):
    """The worker as it is known here, and whether the job that it named was cancelled."""

    worker: WorkerAnswer
    cancelled: bool


class Workers(_Answer):
    """Every worker, in one page."""

    items: list[WorkerAnswer]
    next: None


class MeasurementAnswer(_Answer):
    """A measurement, the job that it ended, and why no fit reads it, if so."""

    id: int
    job: int
    campaign: int | None
    epoch: int
    point: str
    state: Literal["accepted", "quarantined"]
    quarantined: str | None
    received_at: str
    document: dict[str, Any]


class MeasurementListing(_Answer):
    """A page of measurements, newest first."""

    items: list[MeasurementAnswer]
    next: str | None


class ImportedMeasurement(MeasurementAnswer):
    """A measurement that was sent. ``new``: whether it was not here before."""

    new: bool


class ImportedAnswer(_Answer):
    """The measurements that were sent, in their order."""

    items: list[ImportedMeasurement]
    next: None


class Outcome(_Answer):
    """What became of a campaign: the calibration that was fitted, and whether it answers from then on; ``why`` says
    what spoke for or against that, or why nothing could be fitted."""

    calibration: str | None
    points: Count
    better: bool
    why: str
    activated: bool
    errors: dict[str, Any]


class CampaignAnswer(_Answer):
    """A campaign. ``jobs``: how many are in which state; ``activate``: when what is fitted is to answer."""

    id: int
    model: str
    state: CampaignState
    points: Count
    jobs: dict[str, Count]
    activate: Literal["if_better", "always", "never"] | None
    calibration: str | None
    outcome: Outcome | None
    created_at: str
    finished_at: str | None


class CampaignListing(_Answer):
    """A page of campaigns, newest first."""

    items: list[CampaignAnswer]
    next: str | None
