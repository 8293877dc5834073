from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event, text

from app.database import Database
from app.queue import InvalidCursor, InvalidSubmission, JobView, State, Submission
from app.queue.listing import MAX_PAGE
from tests.app.queue.helpers import GIB, Queue, job


async def pages(queue: Queue, **filters: Any) -> list[list[JobView]]:
    found, cursor = [], None
    while True:
        page = await queue.store.list(cursor=cursor, **filters)
        found.append(list(page.items))
        cursor = page.next
        if cursor is None:
            return found


async def test_pages_show_every_job_once_and_the_newest_first(queue: Queue) -> None:
    ids = await queue.add(*(job(steps) for steps in range(2, 12)))
    found = await pages(queue, limit=4)
    assert [len(page) for page in found] == [4, 4, 2]
    assert [one.id for page in found for one in page] == list(reversed(ids))


async def test_the_last_page_is_the_last_even_where_it_is_full(queue: Queue) -> None:
    await queue.add(*(job(steps) for steps in range(2, 10)))
    assert [len(page) for page in await pages(queue, limit=4)] == [4, 4]
    assert [len(page) for page in await pages(queue, limit=8)] == [8]


async def test_jobs_that_come_while_one_turns_the_pages_move_none_of_them(queue: Queue) -> None:
    ids = await queue.add(*(job(steps) for steps in range(2, 8)))
    first = await queue.store.list(limit=3)
    await queue.add(job(9), job(10))
    second = await queue.store.list(limit=3, cursor=first.next)
    assert [one.id for one in (*first.items, *second.items)] == list(reversed(ids))


async def test_a_listing_can_be_of_one_state_or_one_campaign_or_both(queue: Queue) -> None:
    begun = await queue.store.submit(Submission(submitter="me", jobs=(job(2), job(3)), campaign_model="a/model"))
    others = await queue.add(job(4))
    lease = await queue.take()
    of_state = await pages(queue, state=State.QUEUED)
    assert [one.id for one in of_state[0]] == [others[0], begun.job_ids[1]]
    of_campaign = await pages(queue, campaign_id=begun.campaign_id)
    assert [one.id for one in of_campaign[0]] == list(reversed(begun.job_ids))
    both = await pages(queue, campaign_id=begun.campaign_id, state=State.LEASED)
    assert [one.id for one in both[0]] == [lease.key.job_id]
    assert await pages(queue, state=State.FAILED) == [[]]


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "%",
        "é",
        "bm8",
        base64.urlsafe_b64encode(b'["7", null, null]').decode(),
        "WzFd",
        "W3RydWUsbnVsbCxudWxsXQ",
        "W" * 5,
    ],
)
async def test_a_cursor_that_no_page_gave_is_refused(queue: Queue, cursor: str) -> None:
    with pytest.raises(InvalidCursor) as refused:
        await queue.store.list(cursor=cursor)
    assert refused.value.key == "cursor"


async def test_a_cursor_of_another_listing_is_refused(queue: Queue) -> None:
    await queue.add(job(2), job(3))
    page = await queue.store.list(limit=1)
    with pytest.raises(InvalidCursor):
        await queue.store.list(limit=1, cursor=page.next, state=State.QUEUED)


@pytest.mark.parametrize("limit", [0, -1, MAX_PAGE + 1])
async def test_a_page_has_a_size(queue: Queue, limit: int) -> None:
    with pytest.raises(InvalidSubmission):
        await queue.store.list(limit=limit)


async def test_it_is_known_how_many_jobs_wait_for_which_card_and_since_when(queue: Queue) -> None:
    await queue.add(job(2, gpu="H100-80GB"))
    since = queue.clock.now
    queue.clock.move(30)
    await queue.add(job(3, gpu="H100-80GB"), job(4, gpu="L4-24GB"))
    assert [(one.gpu, one.jobs, one.since) for one in await queue.store.depth()] == [
        ("H100-80GB", 2, since),
        ("L4-24GB", 1, queue.clock.now),
    ]


@contextmanager
def statements(database: Database) -> Iterator[list[tuple[str, Any]]]:
    """What is sent to the database within the block, and with which parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if "jobs" in statement and not statement.startswith("INSERT"):
            seen.append((statement, parameters))

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    yield seen
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)


async def plan(database: Database, statement: str, parameters: Any) -> str:
    """How the database would do it, in its own words."""
    explain = "EXPLAIN QUERY PLAN" if database.is_sqlite else "EXPLAIN"
    async with database.read() as connection:
        rows = await connection.exec_driver_sql(f"{explain} {statement}", parameters)
        return "\n".join(str(row) for row in rows)


async def test_among_ten_thousand_jobs_claims_sweeps_and_pages_go_by_an_index(queue: Queue) -> None:
    """So many, so that PostgreSQL's planner has a reason."""
    await queue.add(*(job(2, gpu="B200-180GB", min_total_bytes=150 * GIB, priority=9),) * 5_000)
    await queue.add(*(job(3, gpu="H100-80GB"),) * 5_000)
    if not queue.database.is_sqlite:
        async with queue.database.write() as connection:
            await connection.execute(text("ANALYZE"))
    cursor = (await queue.store.list(limit=1)).next
    with statements(queue.database) as seen:
        await queue.take()
        await queue.store.sweep()
        await queue.store.list(cursor=cursor, limit=1)
    plans = [await plan(queue.database, *one) for one in seen]
    assert len(plans) == 6  # the heads and the taking; leases cut, leases ended, jobs expired; the page
    assert ["ix_jobs_claim" in one for one in plans] == [True, True, False, False, False, False]
    assert "ix_jobs_expires_at" in plans[4]
    for one in plans:
        # Neither reads the table, nor all the jobs that are queued, from the start.
        assert not re.search(r"Seq Scan on jobs|SCAN (jobs|other)|USING INDEX ix_jobs_state_id", one)
