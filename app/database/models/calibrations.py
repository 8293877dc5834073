"""Calibrations, and which of them was active when."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base, Id


class CalibrationModel(Base):
    """One calibration. It never changes: its id is the hash of its content.

    Attributes:
        source: where it is from: ``shipped``, ``campaign`` or ``imported``.
    """

    __tablename__ = "calibrations"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    document: Mapped[dict[str, Any]]
    source: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime]


class ActivationModel(Base):
    """That a calibration was made the active one. The last of them is it; to roll back is to add another."""

    __tablename__ = "activations"

    seq: Mapped[int] = mapped_column(Id, primary_key=True)
    calibration_id: Mapped[str] = mapped_column(String(64), ForeignKey("calibrations.id"))
    at: Mapped[datetime]
    why: Mapped[str]
