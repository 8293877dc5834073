"""The history of the jobs. Rows are added, never changed and never removed."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base


class JobEventModel(Base):
    """One thing that happened to a job, written in the transaction that made it happen.

    Attributes:
        seq: from 1, without a gap. It orders the history; ``at`` may not, where a clock was set back.
        epoch: of the lease that it is about, or the newest at the time.
    """

    __tablename__ = "job_events"

    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    at: Mapped[datetime]
    kind: Mapped[str] = mapped_column(String(20))
    epoch: Mapped[int]
    worker: Mapped[str | None] = mapped_column(String(200))
    detail: Mapped[dict[str, Any]]
