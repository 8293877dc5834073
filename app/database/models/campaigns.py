"""Who asked for what: submissions of jobs, and the campaigns that they belong to."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, Id


class CampaignModel(Base):
    """The points that one calibration of a model is made from.

    Attributes:
        state: ``measuring``, ``done``, ``failed`` or ``cancelled``.
        points: how many were submitted so far; an adaptive campaign adds to them.
        calibration_id: what was fitted to its measurements, once done.
    """

    __tablename__ = "campaigns"
    __table_args__ = (CheckConstraint("state IN ('measuring', 'done', 'failed', 'cancelled')", name="state"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    model: Mapped[str] = mapped_column(String(400))
    state: Mapped[str] = mapped_column(String(16))
    points: Mapped[int]
    calibration_id: Mapped[str | None] = mapped_column(String(64), ForeignKey("calibrations.id"))
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class SubmissionModel(Base):
    """One request for jobs.

    Attributes:
        submitter: whose idempotency keys these are.
        idempotency_key: null where the request had none, and is new each time.
        body_digest: SHA-256 of what was asked for; the same key with another body is a conflict.
    """

    __tablename__ = "submissions"
    __table_args__ = (UniqueConstraint("submitter", "idempotency_key"),)

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    submitter: Mapped[str] = mapped_column(String(200))
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    body_digest: Mapped[str] = mapped_column(String(64))
    campaign_id: Mapped[int | None] = mapped_column(ForeignKey("campaigns.id"))
    created_at: Mapped[datetime]
