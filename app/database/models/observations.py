"""What training runs showed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, Index, String
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, Id


class ObservationModel(Base):
    """A step of somebody's run, or its end, beside what was expected of it. No fit reads it.

    Attributes:
        digest: SHA-256 of the document's canonical JSON, by which the same one sent again is known.
        document: as it came; `app.observations.reading` has its rules.
        state: ``within`` the bound, ``beyond`` it and then ``drift`` says what, or ``unjudged``.
        seen_bytes, expected_bytes, bound_bytes: allocated. calibration: the id of the one that was held against it.
        submitter: whose key sent it.
    """

    __tablename__ = "observations"
    __table_args__ = (
        CheckConstraint("state IN ('within', 'beyond', 'unjudged')", name="state"),
        CheckConstraint("(state = 'beyond') = (drift IS NOT NULL)", name="drift"),
        Index("ix_observations_state_id", "state", "id"),
    )

    id: Mapped[int] = mapped_column(Id, primary_key=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    document: Mapped[dict[str, Any]]
    state: Mapped[str] = mapped_column(String(16))
    drift: Mapped[str | None]
    seen_bytes: Mapped[int | None] = mapped_column(BigInteger)
    expected_bytes: Mapped[int] = mapped_column(BigInteger)
    bound_bytes: Mapped[int] = mapped_column(BigInteger)
    calibration: Mapped[str] = mapped_column(String(200))
    submitter: Mapped[str] = mapped_column(String(200))
    received_at: Mapped[datetime]
