"""What becomes of a campaign's measurements."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, String, text
from sqlalchemy.orm import Mapped, mapped_column

from app.database.base import Base


class CampaignFitModel(Base):
    """How a campaign is to end, and how it did.

    Attributes:
        activate: ``if_better``, ``always`` or ``never``: whether what is fitted is to answer from then on.
        outcome: once it has ended, what was fitted and whether it was activated, or why not.
        attempts: fits that ended without a calibration and without a reason why there can be none.
    """

    __tablename__ = "campaign_fits"

    campaign_id: Mapped[int] = mapped_column(ForeignKey("campaigns.id"), primary_key=True, autoincrement=False)
    activate: Mapped[str] = mapped_column(String(16))
    outcome: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    attempts: Mapped[int] = mapped_column(default=0, server_default=text("0"))


class CalibrationRowsModel(Base):
    """The measurements that a calibration was fitted to, so that it can be compared and watched.

    Attributes:
        documents: a list of them, as they were given.
    """

    __tablename__ = "calibration_rows"

    calibration_id: Mapped[str] = mapped_column(String(64), ForeignKey("calibrations.id"), primary_key=True)
    documents: Mapped[list[Any]]
