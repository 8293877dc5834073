"""Holds the tables to the history: nothing lost, nothing accepted twice, epochs only grow, and each job's state is what
its events make it.

It reads and never writes, from one snapshot, beside a running service or on a copy. ``python -m app.queue.audit URL``
writes what it found as JSON, and exits 0 where that is nothing, 1 where it is something, 2 for a URL that is none and
4 where the database is not there or cannot be read.
"""

from __future__ import annotations

import asyncio
import json
import sys
from argparse import ArgumentParser
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Table, func, inspect, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database.engine import Database
from app.database.errors import InvalidDatabaseUrl
from app.database.url import read_url
from app.queue.folding import Finding, Folded, fold
from app.queue.history import JobRow
from app.queue.tables import CAMPAIGNS, EVENTS, JOBS, LATE_RESULTS, MEASUREMENTS
from app.settings import Settings, words_of

PAGE = 1000


class NothingThere(Exception):
    """No database is where the URL points to, or it is another program's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """How much was read, and what of it is wrong."""

    jobs: int
    events: int
    measurements: int
    findings: tuple[Finding, ...]


async def audit(database: Database) -> Audit:
    """Read everything, and compare."""
    findings: list[Finding] = []
    counts: Counter[str] = Counter()
    async with database.read(snapshot=True) as connection:
        last = 0
        while page := await _page(connection, JOBS, JOBS.c.id > last, JOBS.c.id):
            first, last = page[0].id, page[-1].id
            events = await _of_jobs(connection, EVENTS, first, last)
            measurements = await _of_jobs(connection, MEASUREMENTS, first, last)
            late = await _of_jobs(connection, LATE_RESULTS, first, last)
            counts.update(jobs=len(page))
            for job in page:
                findings += audit_job(job, events[job.id], measurements[job.id], late[job.id])
        for table in (EVENTS, MEASUREMENTS):
            counts[table.name] = (await connection.execute(select(func.count()).select_from(table))).scalar_one()
        findings += await _gone(connection)
    return Audit(
        jobs=counts["jobs"],
        events=counts[EVENTS.name],
        measurements=counts[MEASUREMENTS.name],
        findings=tuple(findings),
    )


def audit_job(
    job: JobRow, events: Sequence[JobRow], measurements: Sequence[JobRow], late: Sequence[JobRow]
) -> Iterator[Finding]:
    """What is wrong with one job: its row, its events by number, its measurements and its late results."""
    folded, findings = fold(job.id, events)
    yield from findings
    for name, told in _told(folded):
        if getattr(job, name) != told:
            yield Finding(job_id=job.id, what=f"{name} is {getattr(job, name)}, and {told} by its history")
    accepted = {(row.id, row.epoch) for row in measurements}
    if accepted != folded.accepted or len(folded.accepted) > 1:
        what = f"measurements {sorted(accepted)}, and {sorted(folded.accepted, key=str)} by its history"
        yield Finding(job_id=job.id, what=what)
    states = {row.state for row in measurements}
    # A history that an earlier release wrote says nothing of it.
    if folded.measurement is not None and states - {folded.measurement}:
        yield Finding(
            job_id=job.id, what=f"its measurement is {', '.join(states)}, and {folded.measurement} by its history"
        )
    kept = {(row.id, row.epoch) for row in late}
    if kept != folded.late:
        yield Finding(job_id=job.id, what=f"late results {sorted(kept)}, and {sorted(folded.late)} by its history")


def _told(folded: Folded) -> Iterable[tuple[str, Any]]:
    yield "state", folded.state
    yield "epoch", folded.epoch
    yield "last_seq", folded.seq
    yield "attempts", folded.attempts
    yield "losses", folded.losses


async def _page(connection: AsyncConnection, table: Table, where: Any, order: Any) -> Sequence[JobRow]:
    return (await connection.execute(select(table).where(where).order_by(order).limit(PAGE))).all()


async def _of_jobs(connection: AsyncConnection, table: Table, first: int, last: int) -> dict[int, list[JobRow]]:
    rows = await connection.execute(
        select(table).where(table.c.job_id.between(first, last)).order_by(table.c.job_id, *table.primary_key.columns)
    )
    found: dict[int, list[JobRow]] = defaultdict(list)
    for row in rows:
        found[row.job_id].append(row)
    return found


async def _gone(connection: AsyncConnection) -> list[Finding]:
    """Jobs that are missing: what else speaks of them is still there."""
    findings = []
    for table in (EVENTS, MEASUREMENTS, LATE_RESULTS):
        orphans = select(table.c.job_id).where(table.c.job_id.not_in(select(JOBS.c.id))).distinct()
        for job_id in (await connection.execute(orphans)).scalars():
            findings.append(Finding(job_id=job_id, what=f"is gone, and {table.name} has rows of it"))
    submissions = select(JOBS.c.submission_id, func.count(), func.max(JOBS.c.position)).group_by(JOBS.c.submission_id)
    for submission, jobs, last in await connection.execute(submissions):
        if last != jobs - 1:
            findings.append(
                Finding(job_id=None, what=f"submission {submission} has {jobs} jobs, the last number {last}")
            )
    of_campaign = select(func.count()).where(JOBS.c.campaign_id == CAMPAIGNS.c.id).scalar_subquery()
    for campaign, points, jobs in await connection.execute(select(CAMPAIGNS.c.id, CAMPAIGNS.c.points, of_campaign)):
        if jobs != points:
            findings.append(Finding(job_id=None, what=f"campaign {campaign} has {jobs} jobs for {points} points"))
    return findings


def main(arguments: Sequence[str]) -> int:
    """Audit the database with the URL that is given, or the service's own."""
    given = _parser().parse_args(arguments).url
    try:
        found = asyncio.run(_audit_url(given or Settings().database_url))
    except ValidationError as error:
        return _say(words_of(error), code=2)
    except InvalidDatabaseUrl as error:
        return _say(str(error), code=2)
    except NothingThere as error:
        return _say(str(error), code=4)
    except (SQLAlchemyError, OSError) as error:
        return _say(f"the database cannot be read: {getattr(error, 'orig', None) or error}", code=4)
    sys.stdout.write(json.dumps(asdict(found)) + "\n")
    return 1 if found.findings else 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -m app.queue.audit",
        description="Hold the queue's tables to their history, and write what is wrong as JSON. Nothing is changed.",
        epilog="Exit codes: 0 nothing is wrong, 1 something is, 2 bad usage, 4 the database cannot be read.",
    )
    help = "of the database: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/NAME; by default CTXPLAN_DATABASE_URL"
    parser.add_argument("url", metavar="URL", nargs="?", help=help)
    return parser


def _say(message: str, *, code: int) -> int:
    sys.stderr.write(f"{message}\n")
    return code


async def _audit_url(url: str) -> Audit:
    parsed = read_url(url)
    if parsed.drivername.startswith("sqlite") and not Path(parsed.database or "").is_file():
        raise NothingThere(f"there is no database at {parsed.database}")
    database = Database(url, read_only=True)
    try:
        async with database.read() as connection:
            if not await connection.run_sync(lambda one: inspect(one).has_table(JOBS.name)):
                raise NothingThere(f"there is no queue in the database {parsed.database}")
        return await audit(database)
    finally:
        await database.dispose()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
