"""A queue with a clock of its own, and short ways to fill it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from app.database import Database
from app.queue import JobRequest, JobStore, Lease, Limits, Submission, WorkerFacts
from app.queue.audit import audit

GIB = 2**30
LEASE = 60
OK = {"outcome": "ok", "peak_allocated_bytes": 1}


class Clock:
    """Stands still until it is told to move, either way."""

    def __init__(self) -> None:
        self.now = datetime(2026, 3, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class Queue:
    """A store on a database, with its clock."""

    def __init__(self, database: Database, *, clock: Clock | None = None, **limits: int) -> None:
        self.database = database
        self.clock = clock or Clock()
        self.store = JobStore(database, clock=self.clock, limits=Limits(**{"lease_seconds": LEASE, **limits}))

    async def add(self, *jobs: JobRequest) -> tuple[int, ...]:
        """Submit; jobs by default one that any worker can do."""
        return (await self.store.submit(Submission(submitter="me", jobs=jobs or (job(),)))).job_ids

    async def take(self, **facts: Any) -> Lease:
        """Claim, and have a lease."""
        lease = await self.store.claim(worker(**facts))
        assert lease is not None
        return lease

    async def kinds(self, job_id: int) -> list[str]:
        """The kinds of what has happened to a job, in order."""
        return [event.kind.value for event in await self.store.history(job_id)]

    async def assert_sound(self) -> None:
        assert (await audit(self.database)).findings == ()


def job(steps: int = 3, **changes: Any) -> JobRequest:
    return JobRequest(point={"job": {"model": "a/model"}, "steps": steps}, **changes)


def worker(name: str = "w", gpu: str = "H100-80GB", total_bytes: int = 80 * GIB, **versions: str | None) -> WorkerFacts:
    return WorkerFacts(id=name, gpu=gpu, total_bytes=total_bytes, versions=versions)


MakeQueue = Callable[..., Queue]
