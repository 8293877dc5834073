"""What a worker may do with the job that it holds.

Whether it still holds it is asked by the statement that acts on it, never before: between a check and an act, a lease
may end.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.queue.errors import LeaseLost, UnknownJob
from app.queue.history import JOB_COLUMNS, JobRow, Move, move, with_failure
from app.queue.requests import check_name, digest_of
from app.queue.states import EventKind, State
from app.queue.tables import HELD, JOBS, NOW
from app.queue.tokens import hash_of
from app.queue.views import LeaseKey

_RENEW = (
    update(JOBS)
    .where(HELD)
    .values(lease_renewed_at=NOW, lease_expires_at=bindparam("until", type_=NOW.type))
    .returning(JOBS.c.lease_expires_at)
)
_HELD_FOR_CHANGE = select(*JOB_COLUMNS).where(HELD).with_for_update()
_STATE = select(JOBS.c.state, JOBS.c.epoch, JOBS.c.lease_token_hash).where(JOBS.c.id == bindparam("job_id"))


def held(key: LeaseKey, now: datetime) -> dict[str, Any]:
    """The parameters of `app.queue.tables.HELD`."""
    return {
        "held_job_id": key.job_id,
        "held_epoch": key.epoch,
        "held_token_hash": hash_of(key.token),
        "now": now,
    }


async def renew(connection: AsyncConnection, key: LeaseKey, now: datetime, *, seconds: int) -> datetime:
    """Hold on to the job for so long from now, and say until when. One statement.

    Raises:
        LeaseLost: it is held no more. UnknownJob: there never was one.
    """
    renewed = await connection.execute(_RENEW, {**held(key, now), "until": now + timedelta(seconds=seconds)})
    until: datetime | None = renewed.scalar_one_or_none()
    if until is None:
        raise await lost(connection, key)
    return until


async def fail(
    connection: AsyncConnection,
    key: LeaseKey,
    now: datetime,
    *,
    why: str,
    detail: Mapping[str, Any],
    retriable: bool,
) -> State:
    """Say that the attempt failed: the job is queued again while it has attempts left and another might do better.

    Raises:
        LeaseLost, UnknownJob: as `renew`. InvalidSubmission: ``why`` is no name, or the detail no JSON.
    """
    check_name("why", why)
    digest_of(detail, key="detail")
    row = await _held_row(connection, key, now)
    again = retriable and row.attempts < row.max_attempts
    kind = EventKind.ATTEMPT_FAILED if again else EventKind.FAILED
    change = Move(
        row=row,
        kind=kind,
        detail={"why": why, "detail": dict(detail)},
        values={"failures": with_failure(row, now, why, detail)},
    )
    await move(connection, [change], now)
    return State.QUEUED if again else State.FAILED


async def give_back(connection: AsyncConnection, key: LeaseKey, now: datetime) -> None:
    """Return the job untouched: it is queued again, and the attempt does not count.

    Raises:
        LeaseLost, UnknownJob: as `renew`.
    """
    row = await _held_row(connection, key, now)
    change = Move(row=row, kind=EventKind.GIVEN_BACK, values={"attempts": row.attempts - 1})
    await move(connection, [change], now)


async def lost(connection: AsyncConnection, key: LeaseKey, *, kept: bool = False) -> LeaseLost:
    """The error for a lease that is held no more, which says why. Raises UnknownJob where there is no such job."""
    row = (await connection.execute(_STATE, {"job_id": key.job_id})).one_or_none()
    if row is None:
        raise UnknownJob(key.job_id)
    if row.state != State.LEASED:
        return LeaseLost(f"job {key.job_id} is {row.state}", kept=kept)
    if row.epoch != key.epoch:
        return LeaseLost(f"job {key.job_id} is leased anew, as number {row.epoch}", kept=kept)
    if row.lease_token_hash != hash_of(key.token):
        return LeaseLost(f"the token is not that of job {key.job_id}", kept=kept)
    return LeaseLost(f"the lease of job {key.job_id} ran out", kept=kept)


async def _held_row(connection: AsyncConnection, key: LeaseKey, now: datetime) -> JobRow:
    row = (await connection.execute(_HELD_FOR_CHANGE, held(key, now))).one_or_none()
    if row is None:
        raise await lost(connection, key)
    return row
