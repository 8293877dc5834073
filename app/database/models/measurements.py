"""What the jobs gave."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, Id


class MeasurementModel(Base):
    """The one result of a job that was accepted. An out-of-memory is one.

    Attributes:
        job_id: unique, so that whatever else fails, no job has two.
        epoch: of the lease under which it was measured.
        document: as it came; `probes.measurement` has its schema.
        document_digest: SHA-256 of its canonical JSON, by which the same result sent again is known.
        state: ``accepted``, or ``quarantined`` and then no fit reads it; ``quarantine_reason`` says why.
    """

    __tablename__ = "measurements"
    __table_args__ = (
        CheckConstraint("state IN ('accepted', 'quarantined')", name="state"),
        CheckConstraint("(state = 'quarantined') = (quarantine_reason IS NOT NULL)", name="quarantine"),
        Index("ix_measurements_state_id", "state", "id"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    point_digest: Mapped[str] = mapped_column(String(64), index=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), unique=True)
    epoch: Mapped[int]
    document: Mapped[dict[str, Any]]
    document_digest: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    quarantine_reason: Mapped[str | None]
    received_at: Mapped[datetime]


class LateResultModel(Base):
    """A result whose lease was over when it came: kept for whoever asks where it went, and counted nowhere."""

    __tablename__ = "late_results"
    __table_args__ = (UniqueConstraint("job_id", "epoch"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    epoch: Mapped[int]
    worker: Mapped[str] = mapped_column(String(200))
    document: Mapped[dict[str, Any]]
    received_at: Mapped[datetime]
