"""What an operator does to jobs: cancel them, and have them tried again."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from app.queue.errors import JobStateConflict, UnknownJob
from app.queue.history import FOR_CHANGE, JobRow, Move, move
from app.queue.states import FINAL, RETRIABLE, EventKind, State


async def cancel(connection: AsyncConnection, job_id: int, now: datetime) -> None:
    """End a job that is queued or leased; its worker learns of it when it renews. A cancelled one stays as it is.

    Raises:
        UnknownJob: there is none. JobStateConflict: it has ended otherwise.
    """
    row = await _row(connection, job_id)
    if row.state == State.CANCELLED:
        return
    if row.state in FINAL:
        raise JobStateConflict(f"job {job_id} is {row.state}", key="job_id", allowed="a job that is queued or leased")
    await move(connection, [Move(row=row, kind=EventKind.CANCELLED)], now)


async def retry(connection: AsyncConnection, job_id: int, now: datetime) -> None:
    """Queue a job again that failed, was cancelled or expired, with all its attempts. Its history stays.

    Raises:
        UnknownJob: there is none. JobStateConflict: it has not ended, or it succeeded.
    """
    row = await _row(connection, job_id)
    if row.state not in RETRIABLE:
        allowed = f"a job that is {', '.join(sorted(RETRIABLE))}"
        raise JobStateConflict(f"job {job_id} is {row.state}", key="job_id", allowed=allowed)
    values = {"attempts": 0, "losses": 0, "failures": [], "expires_at": None}
    await move(connection, [Move(row=row, kind=EventKind.RETRIED, values=values)], now)


async def _row(connection: AsyncConnection, job_id: int) -> JobRow:
    row = (await connection.execute(FOR_CHANGE, {"job_id": job_id})).one_or_none()
    if row is None:
        raise UnknownJob(job_id)
    return row
