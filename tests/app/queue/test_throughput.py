"""The benchmark, at a fraction of its promise so that it runs anywhere: a wait that grows with the queue would show."""

from __future__ import annotations

from app.database import Database
from benchmarks.queue import measure


async def test_sixteen_workers_that_ask_at_once_are_served_in_no_time(database: Database, database_url: str) -> None:
    claims, page_milliseconds = await measure(database_url, waiting=1_000, claims=200)
    assert claims.per_second > 25
    assert claims.p99_milliseconds < 2_000
    assert page_milliseconds < 2_000
