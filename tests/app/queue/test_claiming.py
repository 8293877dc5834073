from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from app.database import Database
from app.queue import Lease, State, UnknownWorker
from tests.app.queue.helpers import GIB, LEASE, Queue, job, worker


async def test_an_empty_queue_gives_nothing(queue: Queue) -> None:
    assert await queue.store.claim(worker()) is None


async def test_a_claimed_job_is_the_workers_until_its_lease_ends(queue: Queue) -> None:
    (job_id,) = await queue.add(job(7))
    lease = await queue.take(name="mine")
    assert (lease.key.job_id, lease.key.epoch, lease.attempt, lease.point["steps"]) == (job_id, 1, 1, 7)
    assert lease.expires_at == queue.clock.now + timedelta(seconds=LEASE)
    seen = await queue.store.get(job_id)
    assert (seen.state, seen.worker, seen.lease_expires_at) == (State.LEASED, "mine", lease.expires_at)
    assert await queue.store.claim(worker("other")) is None


async def test_the_highest_priority_comes_first_and_of_equals_the_oldest(queue: Queue) -> None:
    ids = await queue.add(job(2), job(3, priority=5), job(4, gpu="H100-80GB", priority=5), job(5), job(6, priority=-1))
    order = [(await queue.take()).key.job_id for _ in ids]
    assert order == [ids[1], ids[2], ids[0], ids[3], ids[4]]


async def test_a_clock_that_was_set_back_changes_nothing_about_whose_turn_it_is(queue: Queue) -> None:
    first = await queue.add()
    queue.clock.move(-86_400)
    await queue.add()
    assert ((await queue.take()).key.job_id,) == first


async def test_a_worker_is_given_only_what_its_card_and_its_packages_can_do(queue: Queue) -> None:
    await queue.add(
        job(2, gpu="B200-180GB"),
        job(3, min_total_bytes=80 * GIB + 1),
        job(4, versions={"torch": "2.9.1"}),
        job(5, versions={"torch": "2.9.0", "unsloth": "2026.10.9"}),
    )
    assert await queue.store.claim(worker(torch="2.9.0", unsloth=None)) is None
    assert await queue.store.claim(worker()) is None
    (wanted,) = await queue.add(job(6, gpu="H100-80GB", min_total_bytes=80 * GIB, versions={"torch": "2.9.0"}))
    assert (await queue.take(torch="2.9.0", trl="1.15.0")).key.job_id == wanted


async def test_jobs_that_a_worker_cannot_do_hide_none_that_it_can(queue: Queue) -> None:
    for number in range(30):
        await queue.add(job(2, gpu="H100-80GB", versions={"torch": f"1.{number}"}, priority=10))
    (wanted,) = await queue.add(job(3, versions={"torch": "2.9.0"}))
    assert (await queue.take(torch="2.9.0")).key.job_id == wanted


async def test_a_worker_that_drains_is_given_nothing_until_it_no_longer_does(queue: Queue) -> None:
    await queue.add()
    seen = await queue.store.see_worker(worker("mine", torch="2.9.0", trl=None), name="My box")
    assert (seen.name, seen.versions, seen.last_seen_at) == ("My box", {"torch": "2.9.0", "trl": None}, queue.clock.now)
    await queue.store.drain_worker("mine")
    # That it is seen again does not end it.
    assert (await queue.store.see_worker(worker("mine"), name="My box")).draining
    assert await queue.store.claim(worker("mine")) is None
    await queue.store.drain_worker("mine", draining=False)
    assert await queue.store.claim(worker("mine")) is not None
    assert [one.id for one in await queue.store.workers()] == ["mine"]


async def test_a_worker_that_was_never_seen_cannot_be_drained(queue: Queue) -> None:
    with pytest.raises(UnknownWorker):
        await queue.store.drain_worker("nobody")


async def test_a_job_that_nobody_took_in_time_is_not_given_any_more_and_expires(queue: Queue) -> None:
    (job_id,) = await queue.add(job(expires_in=timedelta(seconds=10)))
    queue.clock.move(10)
    assert await queue.store.claim(worker()) is None
    assert (await queue.store.sweep()).expired == 1
    assert (await queue.store.get(job_id)).state is State.EXPIRED
    assert (await queue.store.retry(job_id)).expires_at is None
    assert (await queue.take()).key.job_id == job_id


async def test_a_job_that_was_taken_in_time_is_measured_past_it(queue: Queue) -> None:
    await queue.add(job(expires_in=timedelta(seconds=10)))
    lease = await queue.take()
    queue.clock.move(11)
    assert (await queue.store.sweep()).expired == 0
    await queue.store.complete(lease.key, {"outcome": "ok"})


async def test_workers_that_ask_at_once_are_given_different_jobs(queue: Queue, database_url: str) -> None:
    """Through two engines, as two replicas have."""
    ids = await queue.add(*(job(steps) for steps in range(2, 62)))
    other_database = Database(database_url)
    other = Queue(other_database, clock=queue.clock)
    leases: list[Lease] = []

    async def work(side: Queue, name: str) -> None:
        while lease := await side.store.claim(worker(name)):
            leases.append(lease)

    try:
        await asyncio.gather(*(work((queue, other)[number % 2], f"w{number}") for number in range(16)))
    finally:
        await other_database.dispose()
    assert sorted(lease.key.job_id for lease in leases) == list(ids)
    assert len({lease.key.token for lease in leases}) == len(ids)
