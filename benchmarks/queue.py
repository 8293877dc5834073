"""Claims at the store, without HTTP: 16 workers that ask at once, on both databases, with ten thousand jobs waiting
and as many more, of a higher priority, that none of them can do."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import quantiles
from time import perf_counter
from typing import NamedTuple

from app.database import Database, migrate
from app.queue import JobRequest, JobStore, Submission, WorkerFacts
from benchmarks.postgres import postgresql
from benchmarks.results import Result
from benchmarks.sample import BODY

WAITING, CLAIMS, CLAIMERS = 10_000, 2_000, 16
PER_SECOND, P99_MILLISECONDS, PAGE_MILLISECONDS = 500, 100, 100
"""What is promised, on two cores: so many claims at least, and so long at most."""
GPU, OTHER_GPU = "H100-80GB", "B200-180GB"
GIB = 2**30


class Claims(NamedTuple):
    """What claiming took: a second of all claimers together, and each claim by itself."""

    per_second: float
    p99_milliseconds: float


def queue_results() -> list[Result]:
    """Claims in a second, the slowest of a hundred claims, and a page of the listing."""
    results = []
    for name in ("SQLite", "PostgreSQL"):
        with database_url(name) as url:
            claims, page = asyncio.run(measure(url, waiting=WAITING, claims=CLAIMS))
        results += [
            Result(what=f"claims, {name}", measured=claims.per_second, unit="1/s", limit=PER_SECOND, better="above"),
            Result(what=f"claims, {name}, p99", measured=claims.p99_milliseconds, unit="ms", limit=P99_MILLISECONDS),
            Result(what=f"a page of 100 of 20,000 jobs, {name}", measured=page, unit="ms", limit=PAGE_MILLISECONDS),
        ]
    return results


@contextmanager
def database_url(name: str) -> Iterator[str]:
    """A new database, whose commits wait for the disk as the service's do."""
    if name == "SQLite":
        with tempfile.TemporaryDirectory() as directory:
            yield f"sqlite+aiosqlite:///{Path(directory) / 'queue.db'}"
    else:
        with postgresql(durable=True) as url:
            yield url


async def measure(url: str, *, waiting: int, claims: int) -> tuple[Claims, float]:
    """Claim so many of so many jobs; then read a page from the middle of the listing, in milliseconds."""
    database = Database(url)
    try:
        await migrate(database)
        store = JobStore(database)
        await store.submit(_jobs(waiting, OTHER_GPU, priority=1))
        await store.submit(_jobs(waiting, GPU, priority=0))
        await _claim_all(store, CLAIMERS * 4)  # connections are opened and statements compiled
        claimed = await _claim_all(store, claims)
        return claimed, await _page(store)
    finally:
        await database.dispose()


async def _claim_all(store: JobStore, claims: int) -> Claims:
    milliseconds: list[float] = []
    left = iter(range(claims))

    async def claimer(number: int) -> None:
        worker = WorkerFacts(id=f"worker-{number}", gpu=GPU, total_bytes=80 * GIB, versions={"torch": "2.9.0"})
        for _ in left:
            begun = perf_counter()
            lease = await store.claim(worker)
            milliseconds.append((perf_counter() - begun) * 1000)
            assert lease is not None

    begun = perf_counter()
    await asyncio.gather(*(claimer(number) for number in range(CLAIMERS)))
    seconds = perf_counter() - begun
    return Claims(per_second=claims / seconds, p99_milliseconds=quantiles(milliseconds, n=100)[-1])


async def _page(store: JobStore) -> float:
    cursor = None
    for _ in range(20):
        cursor = (await store.list(limit=500, cursor=cursor)).next
    begun = perf_counter()
    assert len((await store.list(limit=100, cursor=cursor)).items) == 100
    return (perf_counter() - begun) * 1000


def _jobs(count: int, gpu: str, *, priority: int) -> Submission:
    one = JobRequest(
        point={"job": BODY.decode(), "steps": 3},
        gpu=gpu,
        min_total_bytes=40 * GIB,
        versions={"torch": "2.9.0"},
        priority=priority,
    )
    return Submission(submitter="benchmark", jobs=(one,) * count)
