"""Looking at jobs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from app.queue.errors import InvalidSubmission, UnknownJob
from app.queue.paging import cursor_of, last_of
from app.queue.states import EventKind, State
from app.queue.tables import EVENTS, JOBS, QUEUED, QUEUED_SINCE, REQUIREMENTS
from app.queue.views import Depth, JobEvent, JobView, Page

MAX_PAGE = 500
_SECRET = {"token_hash"}
_VIEW: Select[Any] = select(JOBS, REQUIREMENTS.c.gpu, REQUIREMENTS.c.versions).join(
    REQUIREMENTS, REQUIREMENTS.c.id == JOBS.c.requirement_id
)


async def get(connection: AsyncConnection, job_id: int) -> JobView:
    """One job. Raises UnknownJob."""
    row = (await connection.execute(_VIEW.where(JOBS.c.id == job_id))).one_or_none()
    if row is None:
        raise UnknownJob(job_id)
    return _view(row)


async def list_jobs(
    connection: AsyncConnection, *, state: State | None, campaign_id: int | None, limit: int, cursor: str | None
) -> Page:
    """A page of jobs, newest first. However long the listing is, a page costs the same.

    Raises:
        InvalidCursor: of no page, or of a listing with another filter. InvalidSubmission: the limit.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidSubmission(f"{limit} is not accepted", key="limit", allowed=f"1 to {MAX_PAGE}")
    asked = [state, campaign_id]
    query = _VIEW.order_by(JOBS.c.id.desc()).limit(limit + 1)
    if state is not None:
        query = query.where(JOBS.c.state == state)
    if campaign_id is not None:
        query = query.where(JOBS.c.campaign_id == campaign_id)
    if cursor is not None:
        query = query.where(JOBS.c.id < last_of(cursor, asked))
    rows = (await connection.execute(query)).all()
    more = len(rows) > limit
    shown = rows[:limit]
    return Page(items=tuple(map(_view, shown)), next=cursor_of(shown[-1].id, asked) if more else None)


async def history(connection: AsyncConnection, job_id: int) -> tuple[JobEvent, ...]:
    """All that has happened to a job, in order. Raises UnknownJob."""
    rows = (await connection.execute(select(EVENTS).where(EVENTS.c.job_id == job_id).order_by(EVENTS.c.seq))).all()
    if not rows:
        raise UnknownJob(job_id)
    return tuple(
        JobEvent(
            seq=row.seq,
            at=row.at,
            kind=EventKind(row.kind),
            epoch=row.epoch,
            worker=row.worker,
            detail={key: value for key, value in row.detail.items() if key not in _SECRET},
        )
        for row in rows
    )


async def depth(connection: AsyncConnection) -> tuple[Depth, ...]:
    """How many jobs wait for each kind of card, and since when the oldest of them does."""
    rows = await connection.execute(
        select(REQUIREMENTS.c.gpu, func.count().label("jobs"), func.min(QUEUED_SINCE).label("since"))
        .join(REQUIREMENTS, REQUIREMENTS.c.id == JOBS.c.requirement_id)
        .where(JOBS.c.state == QUEUED)
        .group_by(REQUIREMENTS.c.gpu)
        .order_by(REQUIREMENTS.c.gpu)
    )
    return tuple(Depth(gpu=row.gpu, jobs=row.jobs, since=row.since) for row in rows)


def _view(row: Row[Any]) -> JobView:
    return JobView(
        id=row.id,
        submission_id=row.submission_id,
        campaign_id=row.campaign_id,
        state=State(row.state),
        point=row.point,
        point_digest=row.point_digest,
        gpu=row.gpu,
        versions=row.versions,
        min_total_bytes=row.min_total_bytes,
        priority=row.priority,
        attempts=row.attempts,
        max_attempts=row.max_attempts,
        losses=row.losses,
        epoch=row.epoch,
        failures=tuple(row.failures),
        worker=row.lease_worker,
        leased_at=row.leased_at,
        lease_expires_at=row.lease_expires_at,
        created_at=row.created_at,
        expires_at=row.expires_at,
        finished_at=row.finished_at,
    )
