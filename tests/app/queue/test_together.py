"""Many at once, against one database: what the tests of one operation cannot show."""

from __future__ import annotations

import asyncio
import os
import random
import select
import signal
import subprocess
import sys
from contextlib import suppress

from sqlalchemy import func
from sqlalchemy import select as query

from app.database import Database
from app.queue import LeaseLost, State
from app.queue.tables import MEASUREMENTS
from tests.app.queue.helpers import LEASE, OK, Queue, job, worker

CLAIMS_AND_HANGS = """
import asyncio, sys
from app.database import Database
from app.queue import WorkerFacts
from app.queue.claim import claim
from app.queue.store import utc_now

async def main():
    worker = WorkerFacts(id="dies", gpu="H100-80GB", total_bytes=2**40)
    async with Database(sys.argv[1]).write() as connection:
        lease = await claim(connection, worker, utc_now(), seconds=60, token="t")
        print(lease.key.job_id, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_server_that_is_killed_in_the_middle_of_a_claim_has_claimed_nothing(
    queue: Queue, database_url: str
) -> None:
    (job_id,) = await queue.add()
    with subprocess.Popen([sys.executable, "-c", CLAIMS_AND_HANGS, database_url], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        ready, _, _ = select.select([server.stdout], [], [], 60)
        assert ready
        assert int(server.stdout.readline()) == job_id
        assert (await queue.store.get(job_id)).state is State.QUEUED
        os.kill(server.pid, signal.SIGKILL)
    lease = None
    while lease is None:  # PostgreSQL's side of the dead connection may hold the row for a moment more
        lease = await queue.store.claim(worker("lives"))
    assert (lease.key.job_id, lease.key.epoch) == (job_id, 1)


async def test_workers_that_die_stall_and_answer_late_leave_every_job_measured_once(
    queue: Queue, database_url: str
) -> None:
    """Two replicas, ten workers, dice, and a clock that jumps; no test of one operation has them all together."""
    dice = random.Random(7)
    ids = await queue.add(*(job(steps, max_attempts=10) for steps in range(2, 32)))
    replica = Database(database_url)
    sides = [
        Queue(queue.database, clock=queue.clock, max_losses=100),
        Queue(replica, clock=queue.clock, max_losses=100),
    ]

    async def work(name: str) -> None:
        for _ in range(12):
            side = dice.choice(sides)
            lease = await side.store.claim(worker(name))
            if lease is None:
                queue.clock.move(dice.choice([5, LEASE, -30]))
                await side.store.sweep()
                continue
            fate = dice.random()
            with suppress(LeaseLost):
                if fate < 0.2:
                    continue  # died
                if fate < 0.4:
                    queue.clock.move(LEASE)  # stalled; the result below comes late
                elif fate < 0.5:
                    await side.store.fail(lease.key, "crashed")
                await dice.choice(sides).store.complete(lease.key, {**OK, "epoch": lease.key.epoch})

    try:
        await asyncio.gather(*(work(f"w{number}") for number in range(10)))
        for _ in range(200):
            queue.clock.move(LEASE)
            await sides[0].store.sweep()
            for job_id in ids:
                if (await queue.store.get(job_id)).state is State.FAILED:
                    await queue.store.retry(job_id)
            while lease := await sides[1].store.claim(worker("last")):
                await sides[0].store.complete(lease.key, OK)
            if not (await queue.store.list(state=State.LEASED)).items:
                break
    finally:
        await replica.dispose()
    async with queue.database.read() as connection:
        assert (await connection.execute(query(func.count()).select_from(MEASUREMENTS))).scalar_one() == len(ids)
    assert {(await queue.store.get(one)).state for one in ids} == {State.SUCCEEDED}


async def test_claims_that_are_broken_off_anywhere_lose_no_job(queue: Queue) -> None:
    """A client that hangs up cancels its request, at any await in it."""
    ids = await queue.add(*(job(steps) for steps in range(2, 42)))

    async def broken_off(turns: int) -> None:
        task = asyncio.create_task(queue.store.claim(worker("impatient")))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    for turns in range(0, 60, 2):
        await asyncio.gather(broken_off(turns), broken_off(turns // 2))
    queue.clock.move(LEASE)
    await queue.store.sweep()
    claimed = 0
    while await queue.store.claim(worker("patient")):
        claimed += 1
    states = [(await queue.store.get(one)).state for one in ids]
    assert claimed == states.count(State.LEASED) == len(ids) - states.count(State.FAILED)
