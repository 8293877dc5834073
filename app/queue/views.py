"""What the queue answers with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from app.queue.states import CampaignState, EventKind, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The jobs of a submission, in its order. ``replayed``: they were there already, by the idempotency key."""

    submission_id: int
    campaign_id: int | None
    job_ids: tuple[int, ...]
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseKey:
    """What a worker shows with every message about a job. The token is a secret, and so not in its ``repr``."""

    job_id: int
    epoch: int
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A job in a worker's hands until ``expires_at``, unless it renews.

    Attributes:
        attempt: which lease since the job was submitted or retried, from 1, of at most ``max_attempts``.
    """

    key: LeaseKey
    expires_at: datetime
    seconds: int
    point: Mapping[str, Any]
    point_digest: str
    attempt: int
    max_attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A result that counts. ``replayed``: it was sent again, and counts once."""

    measurement_id: int
    state: Literal["accepted", "quarantined"]
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as anyone may see it; what the fields mean, `app.database.models.JobModel` says."""

    id: int
    submission_id: int
    campaign_id: int | None
    state: State
    point: Mapping[str, Any]
    point_digest: str
    gpu: str | None
    versions: Mapping[str, str]
    min_total_bytes: int
    priority: int
    attempts: int
    max_attempts: int
    losses: int
    epoch: int
    failures: tuple[Mapping[str, Any], ...]
    worker: str | None
    leased_at: datetime | None
    lease_expires_at: datetime | None
    created_at: datetime
    expires_at: datetime | None
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """One line of a job's history."""

    seq: int
    at: datetime
    kind: EventKind
    epoch: int
    worker: str | None
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A part of a listing, newest first. ``next``: the cursor of the part after it, None at the end."""

    items: tuple[JobView, ...]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one sweep did, in jobs: queued again, failed and expired, and leases cut where a clock was set back."""

    requeued: int = 0
    failed: int = 0
    expired: int = 0
    cut: int = 0

    def __add__(self, other: Swept) -> Swept:
        return Swept(
            requeued=self.requeued + other.requeued,
            failed=self.failed + other.failed,
            expired=self.expired + other.expired,
            cut=self.cut + other.cut,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """Jobs that wait for a kind of card (None: for any), and since when the oldest does."""

    gpu: str | None
    jobs: int
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class CampaignView:
    """A campaign, and how many of its jobs are in which state; states without a job are left out."""

    id: int
    model: str
    state: CampaignState
    points: int
    jobs: Mapping[State, int]
    calibration_id: str | None
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """A worker; what the fields mean, `app.database.models.WorkerModel` says."""

    id: str
    name: str
    gpu: str
    total_bytes: int
    versions: Mapping[str, str | None]
    last_seen_at: datetime
    draining: bool
