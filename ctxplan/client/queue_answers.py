"""The answers about what is measured: jobs, measurements, campaigns, workers and observations, key for key as the
service's OpenAPI document states them."""

from __future__ import annotations

from typing import Any, Literal, TypedDict

State = Literal["queued", "leased", "succeeded", "failed", "cancelled", "expired"]
CampaignState = Literal["measuring", "done", "failed", "cancelled"]
MeasurementState = Literal["accepted", "quarantined"]
ObservationState = Literal["within", "beyond", "unjudged"]
Activate = Literal["if_better", "always", "never"]
EventKind = Literal[
    "submitted",
    "leased",
    "succeeded",
    "attempt_failed",
    "lease_lost",
    "given_back",
    "failed",
    "cancelled",
    "expired",
    "retried",
    "late_result",
    "released",
]


class Requires(TypedDict):
    """What a job needs of a worker; ``gpu`` None: any card."""

    gpu: str | None
    min_memory_bytes: int
    versions: dict[str, str]


class JobAnswer(TypedDict):
    """A point to be measured, and where it stands. ``failures``: what went wrong in each attempt."""

    id: int
    state: State
    campaign: int | None
    point: dict[str, Any]
    digest: str
    requires: Requires
    priority: int
    attempts: int
    max_attempts: int
    failures: list[dict[str, Any]]
    worker: str | None
    leased_at: str | None
    lease_expires_at: str | None
    created_at: str
    expires_at: str | None
    finished_at: str | None


class JobEventAnswer(TypedDict):
    """One thing that happened to a job."""

    seq: int
    at: str
    kind: EventKind
    epoch: int
    worker: str | None
    detail: dict[str, Any]


class JobWithHistory(JobAnswer):
    """A job with all that has happened to it, in order."""

    events: list[JobEventAnswer]


class JobListing(TypedDict):
    """A page of jobs, newest first; ``next`` is the cursor of the one after it, None on the last."""

    items: list[JobAnswer]
    next: str | None


class SubmittedAnswer(TypedDict):
    """The jobs of a submission, in its order, and the campaign that they are of."""

    items: list[JobAnswer]
    campaign: int | None


class WorkerAnswer(TypedDict):
    """A worker as it last described itself. ``draining``: it is given no further job."""

    id: str
    name: str
    gpu: str
    total_bytes: int
    versions: dict[str, str | None]
    last_seen_at: str
    draining: bool


class Workers(TypedDict):
    """Every worker, in one page."""

    items: list[WorkerAnswer]
    next: None


class MeasurementAnswer(TypedDict):
    """A measurement, the job that it ended, and why no fit reads it, if so."""

    id: int
    job: int
    campaign: int | None
    epoch: int
    point: str
    state: MeasurementState
    quarantined: str | None
    received_at: str
    document: dict[str, Any]


class MeasurementListing(TypedDict):
    """A page of measurements, newest first."""

    items: list[MeasurementAnswer]
    next: str | None


class ImportedMeasurement(MeasurementAnswer):
    """A measurement that was sent. ``new``: whether it was not here before."""

    new: bool


class ImportedAnswer(TypedDict):
    """The measurements that were sent, in their order."""

    items: list[ImportedMeasurement]
    next: None


class Outcome(TypedDict):
    """What became of a campaign: the calibration that was fitted, and whether it answers from then on; ``why`` says
    what spoke for or against that, or why nothing could be fitted."""

    calibration: str | None
    points: int
    better: bool
    why: str
    activated: bool
    errors: dict[str, Any]


class CampaignAnswer(TypedDict):
    """A campaign. ``jobs``: how many are in which state; ``activate``: when what is fitted is to answer."""

    id: int
    model: str
    state: CampaignState
    points: int
    jobs: dict[str, int]
    activate: Activate | None
    calibration: str | None
    outcome: Outcome | None
    created_at: str
    finished_at: str | None


class CampaignListing(TypedDict):
    """A page of campaigns, newest first."""

    items: list[CampaignAnswer]
    next: str | None


class ObservationAnswer(TypedDict):
    """What was seen of a run, and how the service's calibration answers its job. ``drift`` is what lies beyond the
    bound, None where nothing does."""

    id: int
    state: ObservationState
    drift: str | None
    seen_bytes: int | None
    expected_bytes: int
    bound_bytes: int
    calibration: str
    received_at: str
    document: dict[str, Any]


class ObservationListing(TypedDict):
    """A page of observations, newest first."""

    items: list[ObservationAnswer]
    next: str | None


class KeptObservation(ObservationAnswer):
    """An observation that was sent. ``new``: whether it was not here before."""

    new: bool


class KeptAnswer(TypedDict):
    """The observations that were sent, in their order."""

    items: list[KeptObservation]
    next: None
