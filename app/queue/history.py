"""How a job changes: its row and one more line of its history, in the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Column, bindparam, insert, select, update
from sqlalchemy.engine import Row
from sqlalchemy.ext.asyncio import AsyncConnection

from app.queue.states import FINAL, STEPS, EventKind
from app.queue.tables import EVENTS, JOBS

RECORD = insert(EVENTS)
MOVABLE = ("attempts", "losses", "failures", "expires_at")
JobRow = Row[*tuple[Any, ...]]

JOB_COLUMNS: tuple[Column[Any], ...] = (
    JOBS.c.id,
    JOBS.c.state,
    JOBS.c.epoch,
    JOBS.c.last_seq,
    JOBS.c.attempts,
    JOBS.c.max_attempts,
    JOBS.c.losses,
    JOBS.c.failures,
    JOBS.c.expires_at,
    JOBS.c.lease_worker,
    JOBS.c.leased_at,
    JOBS.c.lease_renewed_at,
    JOBS.c.lease_expires_at,
)
FOR_CHANGE = select(*JOB_COLUMNS).where(JOBS.c.id == bindparam("job_id")).with_for_update()
_MOVE = (
    update(JOBS)
    .where(JOBS.c.id == bindparam("moved_job_id"), JOBS.c.last_seq == bindparam("seen_seq"))
    .values(
        state=bindparam("new_state"),
        attempts=bindparam("new_attempts"),
        losses=bindparam("new_losses"),
        failures=bindparam("new_failures"),
        expires_at=bindparam("new_expires_at"),
        last_seq=bindparam("new_seq"),
        finished_at=bindparam("new_finished_at"),
        lease_token_hash=None,
        lease_worker=None,
        lease_seconds=None,
        leased_at=None,
        lease_renewed_at=None,
        lease_expires_at=None,
    )
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One change of a job whose row the transaction has locked, by an event that ends a lease or gives none.

    Attributes:
        row: the job as it was read, `JOB_COLUMNS`.
        values: columns that change beside the state: some of `MOVABLE`.
    """

    row: JobRow
    kind: EventKind
    detail: Mapping[str, Any] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)


async def move(connection: AsyncConnection, moves: Sequence[Move], now: datetime) -> None:
    """Make the changes, and record each."""
    if not moves:
        return
    done = await connection.execute(_MOVE, [_changed(one, now) for one in moves])
    assert done.rowcount == len(moves), "a locked row has changed"  # noqa: S101
    await connection.execute(
        RECORD,
        [
            event(
                one.row.id,
                one.row.last_seq + 1,
                now,
                one.kind,
                epoch=one.row.epoch,
                worker=one.row.lease_worker,
                detail=one.detail,
            )
            for one in moves
        ],
    )


def event(
    job_id: int,
    seq: int,
    at: datetime,
    kind: EventKind,
    *,
    epoch: int,
    worker: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A row of the history."""
    return {
        "job_id": job_id,
        "seq": seq,
        "at": at,
        "kind": kind,
        "epoch": epoch,
        "worker": worker,
        "detail": dict(detail or {}),
    }


def with_failure(row: JobRow, now: datetime, why: str, detail: Mapping[str, Any]) -> list[Any]:
    """The job's failures, and what ended the lease it is in."""
    entry = {
        "epoch": row.epoch,
        "worker": row.lease_worker,
        "leased_at": row.leased_at.isoformat(),
        "renewed_at": row.lease_renewed_at.isoformat(),
        "at": now.isoformat(),
        "why": why,
        "detail": dict(detail),
    }
    return [*row.failures, entry]


def _changed(one: Move, now: datetime) -> dict[str, Any]:
    step, row = STEPS[one.kind], one.row
    assert row.state in step.before, f"{one.kind} does not lead on from {row.state}"  # noqa: S101
    return {
        "moved_job_id": row.id,
        "seen_seq": row.last_seq,
        "new_seq": row.last_seq + 1,
        "new_state": step.after,
        "new_finished_at": now if step.after in FINAL else None,
        **{f"new_{name}": one.values.get(name, getattr(row, name)) for name in MOVABLE},
    }
