from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event, select

from app.queue import InvalidSubmission, JobStateConflict, LeaseKey, LeaseLost, State, UnknownJob
from app.queue.tables import EVENTS, JOBS
from tests.app.queue.helpers import LEASE, OK, Queue, job


async def test_a_renewed_lease_holds_for_another_term(queue: Queue) -> None:
    await queue.add()
    lease = await queue.take()
    for _ in range(5):
        queue.clock.move(LEASE - 1)
        assert await queue.store.renew(lease.key) == queue.clock.now + timedelta(seconds=LEASE)
    assert (await queue.store.sweep()).requeued == 0


async def test_a_lease_ends_at_its_time_whether_or_not_a_sweep_has_come(queue: Queue) -> None:
    await queue.add()
    lease = await queue.take()
    queue.clock.move(LEASE)
    with pytest.raises(LeaseLost, match="ran out"):
        await queue.store.renew(lease.key)


async def test_a_lease_is_renewed_by_one_statement(queue: Queue) -> None:
    await queue.add()
    lease = await queue.take()
    statements: list[str] = []
    engine = queue.database.engine.sync_engine

    def note(_: Any, __: Any, statement: str, *rest: Any) -> None:
        if not statement.startswith(("BEGIN", "COMMIT")):
            statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    await queue.store.renew(lease.key)
    assert len(statements) == 1
    for condition in ("lease_token_hash = ", "epoch = ", "lease_expires_at > ", "state = 'leased'", "RETURNING"):
        assert condition in statements[0]


@pytest.mark.parametrize("changes", [{"token": "another"}, {"token": "\ud800"}, {"epoch": 2}, {"epoch": 0}])
async def test_only_the_leases_own_token_and_epoch_do(queue: Queue, changes: dict[str, Any]) -> None:
    (job_id,) = await queue.add()
    lease = await queue.take()
    key = LeaseKey(**{"job_id": job_id, "epoch": lease.key.epoch, "token": lease.key.token, **changes})
    for refused in (
        queue.store.renew(key),
        queue.store.complete(key, OK),
        queue.store.fail(key, "crashed"),
        queue.store.give_back(key),
    ):
        with pytest.raises(LeaseLost) as lost:
            await refused
        assert lost.value.code == "lease-lost"
        assert not lost.value.kept
    assert await queue.kinds(job_id) == ["submitted", "leased"]


async def test_no_token_is_kept_anywhere_and_none_is_shown(queue: Queue) -> None:
    (job_id,) = await queue.add()
    lease = await queue.take()
    async with queue.database.read() as connection:
        rows = [await connection.execute(select(table)) for table in (JOBS, EVENTS)]
    assert lease.key.token not in str([row.all() for row in rows])
    assert lease.key.token not in repr(lease)
    assert "token_hash" not in str(await queue.store.history(job_id))


async def test_of_a_job_that_is_not_there_nobody_has_a_lease(queue: Queue) -> None:
    key = LeaseKey(job_id=1_000_000, epoch=1, token="t")
    for refused in (queue.store.renew(key), queue.store.complete(key, OK), queue.store.fail(key, "crashed")):
        with pytest.raises(UnknownJob):
            await refused


async def test_a_failed_attempt_is_tried_again_until_there_are_no_more(queue: Queue) -> None:
    (job_id,) = await queue.add(job(max_attempts=2))
    evidence = {"exit_code": -9, "output": "..."}
    assert await queue.store.fail((await queue.take(name="one")).key, "crashed", detail=evidence) is State.QUEUED
    queue.clock.move(1)
    assert await queue.store.fail((await queue.take(name="two")).key, "timed-out") is State.FAILED
    seen = await queue.store.get(job_id)
    assert (seen.state, seen.attempts, seen.epoch, seen.finished_at) == (State.FAILED, 2, 2, queue.clock.now)
    assert [(one["worker"], one["why"], one["detail"]) for one in seen.failures] == [
        ("one", "crashed", evidence),
        ("two", "timed-out", {}),
    ]
    assert await queue.kinds(job_id) == ["submitted", "leased", "attempt_failed", "leased", "failed"]


async def test_a_failure_that_would_only_be_repeated_is_final(queue: Queue) -> None:
    await queue.add()
    assert await queue.store.fail((await queue.take()).key, "not-supported", retriable=False) is State.FAILED


async def test_a_failure_whose_evidence_cannot_be_kept_is_refused_and_the_lease_goes_on(queue: Queue) -> None:
    await queue.add()
    key = (await queue.take()).key
    with pytest.raises(InvalidSubmission):
        await queue.store.fail(key, "crashed", detail={"seconds": float("inf")})
    with pytest.raises(InvalidSubmission):
        await queue.store.fail(key, "")
    await queue.store.renew(key)


async def test_a_job_that_was_given_back_has_lost_no_attempt(queue: Queue) -> None:
    (job_id,) = await queue.add(job(max_attempts=1))
    for _ in range(3):
        await queue.store.give_back((await queue.take()).key)
    lease = await queue.take()
    assert (lease.attempt, lease.key.epoch) == (1, 4)
    assert (await queue.store.get(job_id)).failures == ()


async def test_a_worker_whose_job_was_cancelled_learns_of_it_when_it_renews(queue: Queue) -> None:
    (job_id,) = await queue.add()
    lease = await queue.take()
    assert (await queue.store.cancel(job_id)).state is State.CANCELLED
    with pytest.raises(LeaseLost, match="is cancelled"):
        await queue.store.renew(lease.key)
    assert (await queue.store.cancel(job_id)).state is State.CANCELLED
    assert await queue.kinds(job_id) == ["submitted", "leased", "cancelled"]


async def test_what_has_ended_is_not_cancelled_and_what_succeeded_is_not_retried(queue: Queue) -> None:
    done, failed, waiting = await queue.add(job(2), job(3), job(4))
    await queue.store.complete((await queue.take()).key, OK)
    await queue.store.fail((await queue.take()).key, "crashed", retriable=False)
    for refused in (queue.store.cancel(done), queue.store.cancel(failed), queue.store.retry(done)):
        with pytest.raises(JobStateConflict) as conflict:
            await refused
        assert conflict.value.allowed is not None
    with pytest.raises(JobStateConflict):
        await queue.store.retry(waiting)
    with pytest.raises(UnknownJob):
        await queue.store.cancel(1_000_000)


async def test_a_retried_job_has_all_its_attempts_and_its_epochs_go_on(queue: Queue) -> None:
    (job_id,) = await queue.add(job(max_attempts=1))
    await queue.store.fail((await queue.take()).key, "crashed")
    seen = await queue.store.retry(job_id)
    assert (seen.state, seen.attempts, seen.losses, seen.failures, seen.finished_at) == (State.QUEUED, 0, 0, (), None)
    assert (await queue.take()).key.epoch == 2


async def test_a_renewal_and_a_sweep_at_once_agree_on_who_has_the_job(queue: Queue) -> None:
    ids = await queue.add(*(job(steps) for steps in range(2, 12)))
    leases = [await queue.take() for _ in ids]
    queue.clock.move(LEASE)
    outcomes = await asyncio.gather(
        *(queue.store.renew(lease.key) for lease in leases), queue.store.sweep(), return_exceptions=True
    )
    assert all(isinstance(outcome, LeaseLost) for outcome in outcomes[:-1])
    assert {(await queue.store.get(one)).state for one in ids} == {State.QUEUED}
