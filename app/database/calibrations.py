"""Calibrations as they are kept: content never changes, and the last activation says which one is active."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.errors import DatabaseError
from app.database.models import ActivationModel, CalibrationModel


class UnknownCalibration(DatabaseError):
    """No calibration has this id."""

    code = "unknown-calibration"


class NothingToRollBackTo(DatabaseError):
    """No other calibration was active before."""

    code = "nothing-to-roll-back-to"


async def add_calibration(
    session: AsyncSession, calibration_id: str, document: Mapping[str, Any], now: datetime, *, source: str
) -> CalibrationModel:
    """Keep a calibration, or find the one that is kept: the same id is the same content."""
    kept = await session.get(CalibrationModel, calibration_id)
    if kept is None:
        kept = CalibrationModel(id=calibration_id, document=dict(document), source=source, created_at=now)
        session.add(kept)
        await session.flush()
    return kept


async def activate(session: AsyncSession, calibration_id: str, now: datetime, *, why: str) -> ActivationModel:
    """Make a kept calibration the active one. Raises UnknownCalibration."""
    if await session.get(CalibrationModel, calibration_id) is None:
        raise UnknownCalibration(f"there is no calibration {calibration_id}", key="calibration_id")
    activation = ActivationModel(calibration_id=calibration_id, at=now, why=why)
    session.add(activation)
    await session.flush()
    return activation


async def active_calibration(session: AsyncSession) -> CalibrationModel | None:
    """The calibration that was activated last; None where none ever was."""
    last = select(ActivationModel.calibration_id).order_by(ActivationModel.seq.desc()).limit(1).scalar_subquery()
    return (await session.execute(select(CalibrationModel).where(CalibrationModel.id == last))).scalar_one_or_none()


async def roll_back(session: AsyncSession, now: datetime, *, why: str) -> ActivationModel:
    """Activate again what was active before the active one. To do so twice is to be back where one began.

    Raises:
        NothingToRollBackTo: nothing else was ever active.
    """
    active = await active_calibration(session)
    if active is None:
        raise NothingToRollBackTo("no calibration was ever active", key="calibration_id")
    before = await session.execute(
        select(ActivationModel.calibration_id)
        .where(ActivationModel.calibration_id != active.id)
        .order_by(ActivationModel.seq.desc())
        .limit(1)
    )
    calibration_id = before.scalar_one_or_none()
    if calibration_id is None:
        raise NothingToRollBackTo(f"only {active.id} was ever active", key="calibration_id")
    return await activate(session, calibration_id, now, why=why)
