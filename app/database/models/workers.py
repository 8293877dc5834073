"""The machines that lend their GPUs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, String
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base


class WorkerModel(Base):
    """A worker as it last described itself.

    Attributes:
        draining: it is given no further job.
    """

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(200), primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    gpu: Mapped[str] = mapped_column(String(200))
    total_bytes: Mapped[int] = mapped_column(BigInteger)
    versions: Mapped[dict[str, Any]]
    last_seen_at: Mapped[datetime]
    draining: Mapped[bool]
