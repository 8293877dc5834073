from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from app.queue import InvalidSubmission, JobStateConflict, LeaseKey, LeaseLost, State
from app.queue.tables import LATE_RESULTS, MEASUREMENTS
from tests.app.queue.helpers import LEASE, OK, Queue


async def rows(queue: Queue, table: Any) -> list[Any]:
    async with queue.database.read() as connection:
        return list((await connection.execute(select(table).order_by(table.c.id))).all())


async def test_a_result_ends_its_job_and_is_kept_as_it_came(queue: Queue) -> None:
    (job_id,) = await queue.add()
    lease = await queue.take()
    queue.clock.move(5)
    accepted = await queue.store.complete(lease.key, OK)
    (kept,) = await rows(queue, MEASUREMENTS)
    assert (kept.id, kept.job_id, kept.epoch, kept.state) == (accepted.measurement_id, job_id, 1, "accepted")
    assert (kept.document, kept.point_digest, kept.received_at) == (OK, lease.point_digest, queue.clock.now)
    seen = await queue.store.get(job_id)
    assert (seen.state, seen.finished_at, seen.worker) == (State.SUCCEEDED, queue.clock.now, "w")
    assert await queue.kinds(job_id) == ["submitted", "leased", "succeeded"]


async def test_an_out_of_memory_is_a_result_like_any_other(queue: Queue) -> None:
    (job_id,) = await queue.add()
    await queue.store.complete((await queue.take()).key, {"outcome": "out_of_memory"})
    assert (await queue.store.get(job_id)).state is State.SUCCEEDED
    assert (await queue.store.history(job_id))[-1].detail["outcome"] == "out_of_memory"


async def test_a_quarantined_result_ends_its_job_and_says_why_no_fit_reads_it(queue: Queue) -> None:
    await queue.add()
    accepted = await queue.store.complete((await queue.take()).key, OK, quarantine="another process used the card")
    assert accepted.state == "quarantined"
    (kept,) = await rows(queue, MEASUREMENTS)
    assert (kept.state, kept.quarantine_reason) == ("quarantined", "another process used the card")


async def test_a_result_that_is_sent_again_is_answered_as_the_first_time_and_counted_once(queue: Queue) -> None:
    await queue.add()
    key = (await queue.take()).key
    first = await queue.store.complete(key, OK)
    queue.clock.move(10 * LEASE)
    again = await queue.store.complete(key, dict(reversed(OK.items())))
    assert (again.measurement_id, again.replayed, first.replayed) == (first.measurement_id, True, False)
    assert len(await rows(queue, MEASUREMENTS)) == 1
    assert await rows(queue, LATE_RESULTS) == []


async def test_another_result_of_the_same_lease_does_not_count(queue: Queue) -> None:
    (job_id,) = await queue.add()
    key = (await queue.take()).key
    await queue.store.complete(key, OK)
    with pytest.raises(LeaseLost, match="is succeeded"):
        await queue.store.complete(key, {"outcome": "ok", "peak_allocated_bytes": 2})
    (kept,) = await rows(queue, MEASUREMENTS)
    assert kept.document == OK
    assert (await queue.store.get(job_id)).state is State.SUCCEEDED


async def test_of_results_that_come_at_once_one_is_accepted(queue: Queue) -> None:
    await queue.add()
    key = (await queue.take()).key
    documents = [{"outcome": "ok", "peak_allocated_bytes": number} for number in range(8)]
    outcomes = await asyncio.gather(
        *(queue.store.complete(key, document) for document in documents), return_exceptions=True
    )
    assert sum(isinstance(outcome, LeaseLost) for outcome in outcomes) == 7
    assert len(await rows(queue, MEASUREMENTS)) == 1


async def test_a_late_result_is_refused_and_put_aside_and_the_job_goes_on(queue: Queue) -> None:
    (job_id,) = await queue.add()
    late = await queue.take(name="late")
    queue.clock.move(LEASE)
    await queue.store.sweep()
    again = await queue.take(name="new")
    with pytest.raises(LeaseLost, match="leased anew") as refused:
        await queue.store.complete(late.key, {"outcome": "ok", "peak_allocated_bytes": 2})
    assert refused.value.kept
    assert await rows(queue, MEASUREMENTS) == []
    (aside,) = await rows(queue, LATE_RESULTS)
    assert (aside.job_id, aside.epoch, aside.worker, aside.document["peak_allocated_bytes"]) == (job_id, 1, "late", 2)
    await queue.store.complete(again.key, OK)
    (kept,) = await rows(queue, MEASUREMENTS)
    assert (kept.epoch, kept.document) == (2, OK)
    assert await queue.kinds(job_id) == ["submitted", "leased", "lease_lost", "leased", "late_result", "succeeded"]


@pytest.mark.parametrize("end", ["expiry", "cancel", "give_back", "fail"])
async def test_however_a_lease_ended_what_comes_after_is_late(queue: Queue, end: str) -> None:
    (job_id,) = await queue.add()
    key = (await queue.take()).key
    if end == "expiry":
        queue.clock.move(LEASE)
    elif end == "cancel":
        await queue.store.cancel(job_id)
    elif end == "give_back":
        await queue.store.give_back(key)
    else:
        await queue.store.fail(key, "crashed")
    with pytest.raises(LeaseLost) as refused:
        await queue.store.complete(key, OK)
    assert refused.value.kept
    assert await rows(queue, MEASUREMENTS) == []
    assert len(await rows(queue, LATE_RESULTS)) == 1


async def test_of_each_lease_the_first_late_result_is_kept(queue: Queue) -> None:
    await queue.add()
    key = (await queue.take()).key
    queue.clock.move(LEASE)
    kept = []
    for number in range(3):
        with pytest.raises(LeaseLost) as refused:
            await queue.store.complete(key, {"outcome": "ok", "number": number})
        kept.append(refused.value.kept)
    assert kept == [True, False, False]
    assert [row.document["number"] for row in await rows(queue, LATE_RESULTS)] == [0]


async def test_what_comes_with_a_token_that_no_lease_had_is_not_even_put_aside(queue: Queue) -> None:
    (job_id,) = await queue.add()
    await queue.take()
    queue.clock.move(LEASE)
    for epoch, token in [(1, "a guess"), (2, "a guess"), (0, "")]:
        with pytest.raises(LeaseLost) as refused:
            await queue.store.complete(LeaseKey(job_id=job_id, epoch=epoch, token=token), OK)
        assert not refused.value.kept
    assert await rows(queue, LATE_RESULTS) == []


async def test_a_document_that_cannot_be_kept_is_refused_and_the_lease_goes_on(queue: Queue) -> None:
    await queue.add()
    key = (await queue.take()).key
    with pytest.raises(InvalidSubmission):
        await queue.store.complete(key, {"loss": float("nan")})
    with pytest.raises(InvalidSubmission):
        await queue.store.complete(key, OK, quarantine="")
    await queue.store.complete(key, OK)


async def test_a_second_result_of_a_job_is_refused_by_the_database_itself(queue: Queue) -> None:
    await queue.add()
    await queue.store.complete((await queue.take()).key, OK)
    (kept,) = await rows(queue, MEASUREMENTS)
    with pytest.raises(IntegrityError):
        async with queue.database.write() as connection:
            await connection.execute(insert(MEASUREMENTS), {**kept._mapping, "id": None, "epoch": 2})


async def test_a_job_that_succeeded_is_never_queued_again(queue: Queue) -> None:
    (job_id,) = await queue.add()
    await queue.store.complete((await queue.take()).key, OK)
    queue.clock.move(10 * LEASE)
    await queue.store.sweep()
    with pytest.raises(JobStateConflict):
        await queue.store.retry(job_id)
    assert (await queue.store.get(job_id)).state is State.SUCCEEDED
