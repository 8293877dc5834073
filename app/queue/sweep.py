"""Ending what nobody else will: leases of workers that fell silent, and jobs that nobody took in time."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.queue.history import JOB_COLUMNS, JobRow, Move, move, with_failure
from app.queue.states import EventKind
from app.queue.tables import JOBS, LEASED, NOW, QUEUED
from app.queue.views import Swept

_RUN_OUT = (
    select(*JOB_COLUMNS)
    .where(JOBS.c.state == LEASED, JOBS.c.lease_expires_at <= NOW)
    .order_by(JOBS.c.lease_expires_at)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
)
_UNWANTED = (
    select(*JOB_COLUMNS)
    .where(JOBS.c.state == QUEUED, JOBS.c.expires_at <= NOW)
    .order_by(JOBS.c.expires_at)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
)
_FROM_THE_FUTURE = (
    select(JOBS.c.id, JOBS.c.lease_seconds)
    .where(JOBS.c.state == LEASED, JOBS.c.lease_expires_at > NOW, JOBS.c.lease_renewed_at > NOW)
    .with_for_update(skip_locked=True)
)
_CUT = (
    update(JOBS)
    .where(JOBS.c.id == bindparam("job_id"), JOBS.c.state == LEASED)
    .values(lease_renewed_at=NOW, lease_expires_at=bindparam("until", type_=NOW.type))
)


async def cut_leases(connection: AsyncConnection, now: datetime) -> Swept:
    """Let no lease outlast a clock that was set back: one renewed in what is now the future ends a term from now."""
    rows = (await connection.execute(_FROM_THE_FUTURE, {"now": now})).all()
    cuts = [{"job_id": row.id, "now": now, "until": now + timedelta(seconds=row.lease_seconds)} for row in rows]
    if cuts:
        await connection.execute(_CUT, cuts)
    return Swept(cut=len(cuts))


async def end_leases(connection: AsyncConnection, now: datetime, *, limit: int, max_losses: int) -> Swept:
    """Queue the jobs again whose leases ran out; fail those that have cost so many workers, or all their attempts."""
    rows = (await connection.execute(_RUN_OUT, {"now": now, "limit": limit})).all()
    moves = [_ended(row, now, max_losses) for row in rows]
    await move(connection, moves, now)
    failed = sum(one.kind is EventKind.FAILED for one in moves)
    return Swept(requeued=len(moves) - failed, failed=failed)


async def end_waiting(connection: AsyncConnection, now: datetime, *, limit: int) -> Swept:
    """Expire the jobs that are still queued after their time."""
    rows = (await connection.execute(_UNWANTED, {"now": now, "limit": limit})).all()
    await move(connection, [Move(row=row, kind=EventKind.EXPIRED) for row in rows], now)
    return Swept(expired=len(rows))


def _ended(row: JobRow, now: datetime, max_losses: int) -> Move:
    losses = row.losses + 1
    values = {"losses": losses, "failures": with_failure(row, now, "lease-lost", {})}
    if losses >= max_losses:
        return Move(row=row, kind=EventKind.FAILED, detail={"why": "workers-lost", "lost": True}, values=values)
    if row.attempts >= row.max_attempts:
        return Move(row=row, kind=EventKind.FAILED, detail={"why": "attempts-used-up", "lost": True}, values=values)
    return Move(row=row, kind=EventKind.LEASE_LOST, values=values)
