from __future__ import annotations

from datetime import UTC, datetime

import pytest
from sqlalchemy import func, select

from app.database import Database
from app.database.calibrations import (
    NothingToRollBackTo,
    UnknownCalibration,
    activate,
    active_calibration,
    add_calibration,
    roll_back,
)
from app.database.models import ActivationModel, CalibrationModel

NOW = datetime(2026, 3, 1, tzinfo=UTC)


async def active_id(database: Database) -> str | None:
    async with database.read_session() as session:
        active = await active_calibration(session)
        return None if active is None else active.id


async def add_and_activate(database: Database, *names: str) -> None:
    for name in names:
        async with database.write_session() as session:
            await add_calibration(session, name, {"of": name}, NOW, source="campaign")
            await activate(session, name, NOW, why="fitted")


async def test_none_is_active_until_one_was_activated(database: Database) -> None:
    assert await active_id(database) is None


async def test_the_one_that_was_activated_last_is_active(database: Database) -> None:
    await add_and_activate(database, "one", "two")
    assert await active_id(database) == "two"


async def test_to_roll_back_is_to_activate_the_previous_one_again_and_twice_is_to_be_back(database: Database) -> None:
    await add_and_activate(database, "one", "two")
    for expected in ("one", "two"):
        async with database.write_session() as session:
            await roll_back(session, NOW, why="errors grew")
        assert await active_id(database) == expected
    async with database.read_session() as session:
        assert (await session.execute(select(func.count()).select_from(ActivationModel))).scalar_one() == 4


async def test_with_nothing_else_there_is_nothing_to_roll_back_to(database: Database) -> None:
    with pytest.raises(NothingToRollBackTo):
        async with database.write_session() as session:
            await roll_back(session, NOW, why="errors grew")
    await add_and_activate(database, "one", "one")
    with pytest.raises(NothingToRollBackTo):
        async with database.write_session() as session:
            await roll_back(session, NOW, why="errors grew")
    assert await active_id(database) == "one"


async def test_only_what_is_kept_can_be_active(database: Database) -> None:
    with pytest.raises(UnknownCalibration):
        async with database.write_session() as session:
            await activate(session, "missing", NOW, why="a mistake")


async def test_the_same_calibration_is_kept_once(database: Database) -> None:
    for source in ("campaign", "imported"):
        async with database.write_session() as session:
            await add_calibration(session, "one", {"of": "one"}, NOW, source=source)
    async with database.read_session() as session:
        assert (await session.execute(select(CalibrationModel.source))).scalars().all() == ["campaign"]
