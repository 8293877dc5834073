"""The queue in numbers, for whoever watches it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.queue.tables import (
    JOBS,
    LATE_RESULTS,
    LEASED,
    MEASUREMENTS,
    QUEUED,
    QUEUED_SINCE,
    REQUIREMENTS,
    WORKERS,
)

ALIVE_SECONDS = 90
"""A worker that was heard of within that is alive: it speaks every 20 seconds, and may miss some."""
ANY = "any"
"""Instead of the card's name, for jobs that any card can do."""
ByGpu = Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many there are of what, by the catalogue name of a card or `ANY`.

    Attributes:
        at: when it was counted. jobs: by state and card. leases: that are held now; one that ran out and was not swept
            yet is not among them. leases_given: ever. oldest_queued: when the job that has waited longest was last
            queued.
        workers: alive, by card and whether they drain. results: ``accepted``, ``quarantined`` and ``late``.
    """

    at: datetime
    jobs: Mapping[tuple[str, str], int]
    leases: ByGpu
    leases_given: ByGpu
    oldest_queued: Mapping[str, datetime]
    workers: Mapping[tuple[str, bool], int]
    results: Mapping[str, int]


async def count(connection: AsyncConnection, now: datetime) -> Counts:
    """Count everything. It reads each job once: not to be asked with every request."""
    jobs = dict[tuple[str, str], int]()
    given = dict[str, int]()
    for row in await connection.execute(_JOBS):
        gpu = row.gpu or ANY
        jobs[row.state, gpu] = row.jobs
        given[gpu] = given.get(gpu, 0) + row.leases
    oldest = {row.gpu or ANY: row.since for row in await connection.execute(_WAITING)}
    held = await connection.execute(_HELD.where(JOBS.c.lease_expires_at > now))
    alive = await connection.execute(_WORKERS.where(WORKERS.c.last_seen_at > now - timedelta(seconds=ALIVE_SECONDS)))
    taken = {row.state: row.results for row in await connection.execute(_RESULTS)}
    late = (await connection.execute(select(func.count()).select_from(LATE_RESULTS))).scalar_one()
    return Counts(
        at=now,
        jobs=jobs,
        leases={row.gpu or ANY: row.leases for row in held},
        leases_given=given,
        oldest_queued=oldest,
        workers={(row.gpu, row.draining): row.workers for row in alive},
        results={"accepted": 0, "quarantined": 0, **taken, "late": late},
    )


_OF_JOBS = JOBS.join(REQUIREMENTS, REQUIREMENTS.c.id == JOBS.c.requirement_id)
_JOBS = (
    select(
        JOBS.c.state,
        REQUIREMENTS.c.gpu,
        func.count().label("jobs"),
        func.sum(JOBS.c.epoch).label("leases"),
    )
    .select_from(_OF_JOBS)
    .group_by(JOBS.c.state, REQUIREMENTS.c.gpu)
)
_WAITING = (
    select(REQUIREMENTS.c.gpu, func.min(QUEUED_SINCE).label("since"))
    .select_from(_OF_JOBS)
    .where(JOBS.c.state == QUEUED)
    .group_by(REQUIREMENTS.c.gpu)
)
_HELD = (
    select(REQUIREMENTS.c.gpu, func.count().label("leases"))
    .select_from(_OF_JOBS)
    .where(JOBS.c.state == LEASED)
    .group_by(REQUIREMENTS.c.gpu)
)
_WORKERS = select(WORKERS.c.gpu, WORKERS.c.draining, func.count().label("workers")).group_by(
    WORKERS.c.gpu, WORKERS.c.draining
)
_RESULTS = select(MEASUREMENTS.c.state, func.count().label("results")).group_by(MEASUREMENTS.c.state)
