"""The queue's answers as plain JSON values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from app.queue import CampaignView, JobEvent, JobView, Lease, WorkerView


def when(at: datetime | None) -> str | None:
    """ISO 8601 in UTC, to the millisecond."""
    return None if at is None else at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def job_to_json(job: JobView, history: Sequence[JobEvent] | None = None) -> dict[str, Any]:
    """A job; with its history where that is given."""
    document: dict[str, Any] = {
        "id": job.id,
        "state": job.state.value,
        "campaign": job.campaign_id,
        "point": dict(job.point),
        "digest": job.point_digest,
        "requires": {"gpu": job.gpu, "min_memory_bytes": job.min_total_bytes, "versions": dict(job.versions)},
        "priority": job.priority,
        "attempts": job.attempts,
        "max_attempts": job.max_attempts,
        "failures": [dict(one) for one in job.failures],
        "worker": job.worker,
        "leased_at": when(job.leased_at),
        "lease_expires_at": when(job.lease_expires_at),
        "created_at": when(job.created_at),
        "expires_at": when(job.expires_at),
        "finished_at": when(job.finished_at),
    }
    if history is not None:
        document["events"] = [event_to_json(one) for one in history]
    return document


def event_to_json(event: JobEvent) -> dict[str, Any]:
    """One line of a job's history."""
    return {
        "seq": event.seq,
        "at": when(event.at),
        "kind": event.kind.value,
        "epoch": event.epoch,
        "worker": event.worker,
        "detail": dict(event.detail),
    }


def lease_to_json(lease: Lease, *, time_limit_seconds: int) -> dict[str, Any]:
    """A lease as its worker is given it: with the token, which is nowhere else."""
    return {
        "job": lease.key.job_id,
        "epoch": lease.key.epoch,
        "token": lease.key.token,
        **term(lease.seconds),
        "point": dict(lease.point),
        "digest": lease.point_digest,
        "time_limit_seconds": time_limit_seconds,
        "attempt": lease.attempt,
        "max_attempts": lease.max_attempts,
    }


def term(seconds: int) -> dict[str, int]:
    """How long a lease holds, and after how long to renew it: two renewals may be lost."""
    return {"expires_in_seconds": seconds, "renew_after_seconds": max(1, seconds // 3)}


def worker_to_json(worker: WorkerView) -> dict[str, Any]:
    """A worker as it last described itself."""
    return {
        "id": worker.id,
        "name": worker.name,
        "gpu": worker.gpu,
        "total_bytes": worker.total_bytes,
        "versions": dict(worker.versions),
        "last_seen_at": when(worker.last_seen_at),
        "draining": worker.draining,
    }


def campaign_to_json(campaign: CampaignView, activate: str | None, outcome: Mapping[str, Any] | None) -> dict[str, Any]:
    """A campaign, how far it is, and what became of it."""
    return {
        "id": campaign.id,
        "model": campaign.model,
        "state": campaign.state.value,
        "points": campaign.points,
        "jobs": {state.value: count for state, count in sorted(campaign.jobs.items())},
        "activate": activate,
        "calibration": f"sha256-{campaign.calibration_id}" if campaign.calibration_id else None,
        "outcome": None if outcome is None else dict(outcome),
        "created_at": when(campaign.created_at),
        "finished_at": when(campaign.finished_at),
    }


def measurement_to_json(row: Any) -> dict[str, Any]:
    """A row of the measurements, with its job's campaign."""
    return {
        "id": row.id,
        "job": row.job_id,
        "campaign": row.campaign_id,
        "epoch": row.epoch,
        "point": row.point_digest,
        "state": row.state,
        "quarantined": row.quarantine_reason,
        "received_at": when(row.received_at),
        "document": row.document,
    }
