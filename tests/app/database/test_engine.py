from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import IntegrityError, StatementError

from app.database import Database
from app.database.models import ApiKeyModel, CalibrationModel, CampaignModel, WorkerModel

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)


def worker(name: str, **changes: Any) -> WorkerModel:
    values = {"gpu": "H100-80GB", "total_bytes": 2**37, "versions": {"torch": "2.9.0"}, "last_seen_at": NOW}
    return WorkerModel(id=name, name=name, draining=False, **{**values, **changes})


async def names(database: Database) -> list[str]:
    async with database.read_session() as session:
        return list((await session.execute(select(WorkerModel.id).order_by(WorkerModel.id))).scalars())


async def test_what_is_written_is_there_once_the_block_has_ended_and_not_before(database: Database) -> None:
    async with database.write_session() as session:
        session.add(worker("one"))
        await session.flush()
        assert await names(database) == []
    assert await names(database) == ["one"]


async def test_nothing_is_left_of_a_block_that_raised(database: Database) -> None:
    async def fail() -> None:
        async with database.write_session() as session:
            session.add(worker("one"))
            await session.flush()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert await names(database) == []


async def test_a_block_that_was_cancelled_leaves_nothing_and_blocks_nobody(database: Database) -> None:
    inside = asyncio.Event()

    async def hang() -> None:
        async with database.write_session() as session:
            session.add(worker("one"))
            await session.flush()
            inside.set()
            await asyncio.Event().wait()

    hanging = asyncio.create_task(hang())
    await inside.wait()
    hanging.cancel()
    with pytest.raises(asyncio.CancelledError):
        await hanging
    async with database.write_session() as session:
        session.add(worker("two"))
    assert await names(database) == ["two"]


async def test_writers_at_once_lose_no_update(database: Database) -> None:
    async with database.write_session() as session:
        session.add(worker("one", total_bytes=0))

    async def add_one() -> None:
        async with database.write() as connection:
            await connection.execute(text("UPDATE workers SET total_bytes = total_bytes + 1"))

    await asyncio.gather(*(add_one() for _ in range(40)))
    async with database.read_session() as session:
        assert (await session.execute(select(WorkerModel.total_bytes))).scalar_one() == 40


async def test_a_snapshot_does_not_see_what_is_written_after_it_began(database: Database) -> None:
    async with database.read(snapshot=True) as connection:
        count = text("SELECT count(*) FROM workers")
        assert (await connection.execute(count)).scalar_one() == 0
        async with database.write_session() as session:
            session.add(worker("one"))
        assert (await connection.execute(count)).scalar_one() == 0


async def test_a_time_comes_back_as_the_same_instant_in_utc(database: Database) -> None:
    seen = NOW.astimezone(timezone(timedelta(hours=-7)))
    async with database.write_session() as session:
        session.add(worker("one", last_seen_at=seen))
    async with database.read_session() as session:
        kept = (await session.execute(select(WorkerModel.last_seen_at))).scalar_one()
    assert kept == seen
    assert kept.utcoffset() == timedelta(0)


async def test_a_time_without_a_zone_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="without a zone"):
        async with database.write_session() as session:
            session.add(worker("one", last_seen_at=NOW.replace(tzinfo=None)))


@pytest.mark.parametrize("text_inside", ["\x00", "\ud800", "é", '"'])
async def test_a_document_comes_back_as_it_went_in_whatever_its_strings_hold(
    database: Database, text_inside: str
) -> None:
    document = {"z": text_inside, "a": [1, 2.5, None, True], "n": 2**70}
    async with database.write_session() as session:
        session.add(CalibrationModel(id="c", document=document, source="imported", created_at=NOW))
    async with database.read_session() as session:
        kept = (await session.execute(select(CalibrationModel.document))).scalar_one()
    assert kept == document
    assert list(kept) == list(document)


async def test_a_document_with_a_number_that_is_none_is_refused(database: Database) -> None:
    with pytest.raises((StatementError, ValueError), match="JSON compliant"):
        async with database.write_session() as session:
            session.add(CalibrationModel(id="c", document={"x": float("nan")}, source="imported", created_at=NOW))


async def test_rows_refer_only_to_rows_that_are_there(database: Database) -> None:
    with pytest.raises(IntegrityError):
        async with database.write_session() as session:
            session.add(CampaignModel(model="m", state="done", points=1, calibration_id="missing", created_at=NOW))


async def test_two_keys_with_one_prefix_are_refused(database: Database) -> None:
    def key(name: str) -> ApiKeyModel:
        return ApiKeyModel(id=name, name=name, prefix="cp_1234", hmac="0" * 64, scopes=["plan:read"], created_at=NOW)

    async with database.write_session() as session:
        session.add(key("one"))
    with pytest.raises(IntegrityError):
        async with database.write_session() as session:
            session.add(key("two"))


async def test_sqlite_runs_with_a_log_foreign_keys_and_patience(database: Database) -> None:
    if not database.is_sqlite:
        pytest.skip("of SQLite")
    async with database.read() as connection:
        for pragma, value in {
            "journal_mode": "wal",
            "foreign_keys": 1,
            "busy_timeout": 30_000,
            "synchronous": 1,
        }.items():
            assert (await connection.exec_driver_sql(f"PRAGMA {pragma}")).scalar_one() == value


async def test_on_postgresql_no_statement_and_no_idle_transaction_lasts_for_ever(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("of PostgreSQL")
    async with database.read() as connection:
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            assert (await connection.execute(text(f"SHOW {name}"))).scalar_one() == "1min"


async def test_sqlite_writers_take_turns_in_the_order_in_which_they_came(database: Database) -> None:
    if not database.is_sqlite:
        pytest.skip("of SQLite")
    order: list[int] = []

    async def write(number: int) -> None:
        async with database.write():
            order.append(number)

    await asyncio.gather(*(write(number) for number in range(20)))
    assert order == list(range(20))


async def test_no_connection_outlives_the_database_that_was_disposed_of(database: Database) -> None:
    """Those that are given back while it is disposed of are closed too: a pool forgets what comes back late."""
    open_now: set[int] = set()
    event.listen(database.engine.sync_engine, "connect", lambda one, _: open_now.add(id(one)))
    event.listen(database.engine.sync_engine, "close", lambda one, _: open_now.discard(id(one)))
    inside = asyncio.Semaphore(0)

    async def hold() -> None:
        async with database.read() as connection:
            await connection.execute(select(1))
            inside.release()
            await asyncio.Event().wait()

    holders = [asyncio.create_task(hold()) for _ in range(4)]
    for _ in holders:
        await inside.acquire()
    assert len(open_now) == len(holders)
    for holder in holders:
        holder.cancel()
    await database.dispose()
    assert not open_now
    await asyncio.gather(*holders, return_exceptions=True)
