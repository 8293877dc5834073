"""The database beside the service: opened and closed with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import structlog
from sqlalchemy import event, text
from sqlalchemy.pool import Pool

from app import backend
from app.database import Database
from app.database.migrate import LOCK
from app.settings import Settings


@pytest.fixture
def open_now() -> Any:
    """The driver's connections that any pool of the test has open."""
    found: set[int] = set()
    listeners: tuple[tuple[str, Callable[..., None]], ...] = (
        ("connect", lambda one, _: found.add(id(one))),
        ("close", lambda one, _: found.discard(id(one))),
    )
    for name, listener in listeners:
        event.listen(Pool, name, listener)
    yield found
    for name, listener in listeners:
        event.remove(Pool, name, listener)


async def test_a_service_that_ends_while_it_waits_to_migrate_leaves_no_connection_open(
    database: Database, database_url: str, open_now: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if database.is_sqlite:
        pytest.skip("of PostgreSQL: SQLite's lock is waited for in a thread, which cannot be told to stop")
    monkeypatch.setattr(backend, "STOP_SECONDS", 0.05)
    one = backend.Backend(Settings(database_url=database_url), log=structlog.get_logger())
    async with database.write() as holder:
        await holder.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
        before = set(open_now)
        async with one.opened():
            async with asyncio.timeout(20):
                while open_now == before:
                    await asyncio.sleep(0.01)
        assert open_now == before
