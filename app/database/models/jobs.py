"""Probe jobs, and what they need of a worker."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, Id

STATES = "'queued', 'leased', 'succeeded', 'failed', 'cancelled', 'expired'"


def _partial(name: str, state: str, *columns: str) -> Index:
    """An index of the jobs in one state. A query uses it where it has that state as a literal, not as a parameter."""
    where = text(f"state = '{state}'")
    parts = [text(column) if " " in column else column for column in columns]
    return Index(name, *parts, sqlite_where=where, postgresql_where=where)


class RequirementModel(Base):
    """A kind of worker that jobs ask for. Few, never changed, shared by all jobs that ask for the same.

    Attributes:
        digest: SHA-256 of the other two, by which equal ones are found.
        gpu: catalogue name of the card; null where any will do.
        versions: package names with the one version that each must have.
    """

    __tablename__ = "requirements"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    gpu: Mapped[str | None] = mapped_column(String(200), index=True)
    versions: Mapped[dict[str, Any]]


class JobModel(Base):
    """A point to be measured, where it stands, and who has it.

    Attributes:
        position: of the job within its submission, from 0.
        point, point_digest: what to measure, as JSON and by name (SHA-256 of the canonical JSON).
        min_total_bytes: total bytes that the card has at least.
        attempts, losses: leases given since it was submitted or retried, and those that ran out without a word.
        epoch: leases ever given. A result counts for the newest alone.
        last_seq: number of its newest event.
        failures: what went wrong in each attempt since it was submitted or retried: the evidence of a failure.
        lease_token_hash: SHA-256 of the newest lease's token; the token itself is nowhere.
        lease_seconds: how long a renewal holds. lease_renewed_at: the last one, or when it was given.
        expires_at: where it is still queued then, nobody wants it any more.
    """

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    submission_id: Mapped[int] = mapped_column(ForeignKey("submissions.id"))
    position: Mapped[int]
    campaign_id: Mapped[int | None] = mapped_column(ForeignKey("campaigns.id"))
    point: Mapped[dict[str, Any]]
    point_digest: Mapped[str] = mapped_column(String(64), index=True)
    requirement_id: Mapped[int] = mapped_column(ForeignKey("requirements.id"))
    min_total_bytes: Mapped[int] = mapped_column(BigInteger)
    priority: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int]
    max_attempts: Mapped[int]
    losses: Mapped[int]
    epoch: Mapped[int]
    last_seq: Mapped[int]
    failures: Mapped[list[Any]]
    lease_token_hash: Mapped[str | None] = mapped_column(String(64))
    lease_worker: Mapped[str | None] = mapped_column(String(200))
    lease_seconds: Mapped[int | None]
    leased_at: Mapped[datetime | None]
    lease_renewed_at: Mapped[datetime | None]
    lease_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]

    __table_args__ = (
        CheckConstraint(f"state IN ({STATES})", name="state"),
        CheckConstraint(
            "(state = 'leased') = (lease_expires_at IS NOT NULL)"
            " AND (state <> 'leased' OR (lease_token_hash IS NOT NULL AND lease_worker IS NOT NULL))",
            name="lease",
        ),
        Index("uq_jobs_submission_id_position", "submission_id", "position", unique=True),
        # In the order in which they are claimed; the last column spares a look at the row.
        _partial("ix_jobs_claim", "queued", "requirement_id", "priority DESC", "id", "min_total_bytes"),
        # What a sweep looks for. SQLite prefers these to ix_jobs_state_id only where they have the state as well.
        _partial("ix_jobs_lease_expires_at", "leased", "state", "lease_expires_at", "lease_renewed_at"),
        _partial("ix_jobs_expires_at", "queued", "state", "expires_at"),
        # In the order in which they are listed.
        Index("ix_jobs_state_id", "state", "id"),
        Index("ix_jobs_campaign_id_id", "campaign_id", "id"),
    )
