from __future__ import annotations

import asyncio
from datetime import timedelta

from app.database import Database
from app.queue import State, Swept
from tests.app.queue.helpers import LEASE, OK, Queue, job, worker


async def test_a_dead_workers_job_is_leased_again_after_its_term_and_one_sweep(queue: Queue) -> None:
    (job_id,) = await queue.add()
    await queue.take(name="dead")
    queue.clock.move(LEASE - 1)
    assert await queue.store.sweep() == Swept()
    queue.clock.move(1)
    assert await queue.store.sweep() == Swept(requeued=1)
    lease = await queue.take(name="alive")
    assert (lease.key.job_id, lease.key.epoch, lease.attempt) == (job_id, 2, 2)


async def test_a_job_that_cost_two_workers_fails_with_its_evidence(queue: Queue) -> None:
    (job_id,) = await queue.add(job(max_attempts=5))
    for name in ("one", "two"):
        lease = await queue.take(name=name)
        queue.clock.move(5)
        await queue.store.renew(lease.key)
        queue.clock.move(LEASE)
        swept = await queue.store.sweep()
    assert swept == Swept(failed=1)
    seen = await queue.store.get(job_id)
    assert (seen.state, seen.losses, seen.attempts) == (State.FAILED, 2, 2)
    assert [(one["worker"], one["epoch"], one["why"]) for one in seen.failures] == [
        ("one", 1, "lease-lost"),
        ("two", 2, "lease-lost"),
    ]
    assert all(one["leased_at"] < one["renewed_at"] < one["at"] for one in seen.failures)
    assert (await queue.store.history(job_id))[-1].detail["why"] == "workers-lost"
    assert await queue.store.claim(worker()) is None


async def test_a_job_whose_last_attempt_fell_silent_fails(queue: Queue) -> None:
    (job_id,) = await queue.add(job(max_attempts=1))
    await queue.take()
    queue.clock.move(LEASE)
    assert await queue.store.sweep() == Swept(failed=1)
    assert (await queue.store.history(job_id))[-1].detail["why"] == "attempts-used-up"


async def test_a_sweep_ends_all_there_is_to_end_however_much_that_is(database: Database) -> None:
    queue = Queue(database, sweep_jobs=4)
    await queue.add(*(job(steps) for steps in range(2, 12)))
    for _ in range(10):
        await queue.take()
    await queue.add(*(job(expires_in=timedelta(seconds=1)) for _ in range(9)))
    queue.clock.move(LEASE)
    assert await queue.store.sweep() == Swept(requeued=10, expired=9)
    assert await queue.store.sweep() == Swept()
    await queue.assert_sound()


async def test_sweeps_at_once_end_each_lease_once(queue: Queue) -> None:
    ids = await queue.add(*(job(steps) for steps in range(2, 22)))
    for _ in ids:
        await queue.take()
    queue.clock.move(LEASE)
    swept = await asyncio.gather(*(queue.store.sweep() for _ in range(4)))
    assert sum(one.requeued for one in swept) == len(ids)


async def test_a_lease_does_not_outlast_a_clock_that_was_set_back(queue: Queue) -> None:
    (job_id,) = await queue.add()
    await queue.take()
    queue.clock.move(-86_400)
    assert await queue.store.sweep() == Swept(cut=1)
    seen = await queue.store.get(job_id)
    assert seen.lease_expires_at == queue.clock.now + timedelta(seconds=LEASE)
    queue.clock.move(LEASE)
    assert await queue.store.sweep() == Swept(requeued=1)


async def test_a_worker_that_lives_keeps_its_job_while_the_clock_is_set_back(queue: Queue) -> None:
    await queue.add()
    key = (await queue.take()).key
    for _ in range(3):
        queue.clock.move(-3600)
        await queue.store.sweep()
        queue.clock.move(LEASE / 2)
        await queue.store.renew(key)
        assert await queue.store.sweep() == Swept()
    await queue.store.complete(key, OK)


async def test_a_clock_that_was_set_forward_ends_leases_early_and_counts_nothing_twice(queue: Queue) -> None:
    (job_id,) = await queue.add()
    early = await queue.take(name="early")
    queue.clock.move(86_400)
    assert await queue.store.sweep() == Swept(requeued=1)
    queue.clock.move(-86_400)
    late = await queue.take(name="late")
    await queue.store.complete(late.key, OK)
    assert late.key.epoch == early.key.epoch + 1
    assert (await queue.store.get(job_id)).state is State.SUCCEEDED
