"""Giving the best job that a worker can do to that worker, and to no other."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, FromClause, and_, bindparam, exists, or_, select, true, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.queue.history import RECORD, event
from app.queue.requests import WorkerFacts
from app.queue.states import EventKind, State
from app.queue.tables import JOBS, NOW, QUEUED, REQUIREMENTS, WORKERS
from app.queue.tokens import hash_of
from app.queue.views import Lease, LeaseKey

_OTHER = JOBS.alias("other")


def _claimable(table: FromClause, requirement_id: ColumnElement[int]) -> ColumnElement[bool]:
    return and_(
        table.c.requirement_id == requirement_id,
        table.c.state == QUEUED,
        table.c.min_total_bytes <= bindparam("total_bytes"),
        or_(table.c.expires_at.is_(None), table.c.expires_at > NOW),
    )


# The first job of every kind that this card can do; the kinds are few, and each is one step into the index. Which
# versions a worker must have is compared outside.
_HEADS = (
    select(REQUIREMENTS.c.id, REQUIREMENTS.c.versions)
    .join(
        JOBS,
        JOBS.c.id
        == select(_OTHER.c.id)
        .where(_claimable(_OTHER, REQUIREMENTS.c.id))
        .order_by(_OTHER.c.priority.desc(), _OTHER.c.id)
        .limit(1)
        .correlate(REQUIREMENTS)
        .scalar_subquery(),
    )
    .where(
        or_(REQUIREMENTS.c.gpu.is_(None), REQUIREMENTS.c.gpu == bindparam("gpu")),
        ~exists().where(WORKERS.c.id == bindparam("worker"), WORKERS.c.draining == true()),
    )
    .order_by(JOBS.c.priority.desc(), JOBS.c.id)
)
# On PostgreSQL, rows that another claim has locked are passed over. SQLite knows no such lock, and needs none: the
# transaction holds its only one.
_FIRST = (
    select(_OTHER.c.id)
    .where(_claimable(_OTHER, bindparam("kind")))
    .order_by(_OTHER.c.priority.desc(), _OTHER.c.id)
    .limit(1)
    .with_for_update(skip_locked=True)
    .scalar_subquery()
)
_TAKE = (
    update(JOBS)
    .where(JOBS.c.id == _FIRST, JOBS.c.state == QUEUED)
    .values(
        state=State.LEASED,
        attempts=JOBS.c.attempts + 1,
        epoch=JOBS.c.epoch + 1,
        last_seq=JOBS.c.last_seq + 1,
        lease_token_hash=bindparam("token_hash"),
        lease_worker=bindparam("worker"),
        lease_seconds=bindparam("seconds"),
        leased_at=NOW,
        lease_renewed_at=NOW,
        lease_expires_at=bindparam("until", type_=NOW.type),
    )
    .returning(
        JOBS.c.id,
        JOBS.c.epoch,
        JOBS.c.last_seq,
        JOBS.c.attempts,
        JOBS.c.max_attempts,
        JOBS.c.point,
        JOBS.c.point_digest,
    )
)


async def claim(
    connection: AsyncConnection, worker: WorkerFacts, now: datetime, *, seconds: int, token: str
) -> Lease | None:
    """Lease the best queued job that the worker can do: of the highest priority, the one submitted first."""
    facts = {"now": now, "gpu": worker.gpu, "total_bytes": worker.total_bytes, "worker": worker.id}
    heads = (await connection.execute(_HEADS, facts)).all()
    until = now + timedelta(seconds=seconds)
    lease = {
        "now": now,
        "until": until,
        "total_bytes": worker.total_bytes,
        "worker": worker.id,
        "seconds": seconds,
        "token_hash": hash_of(token),
    }
    for kind, versions in heads:
        if not worker.has(versions):
            continue
        taken = await connection.execute(_TAKE, {**lease, "kind": kind})
        row = taken.one_or_none()
        if row is None:  # others have taken all of this kind in the meantime
            continue
        detail = {"token_hash": lease["token_hash"], "seconds": seconds}
        history = event(row.id, row.last_seq, now, EventKind.LEASED, epoch=row.epoch, worker=worker.id, detail=detail)
        await connection.execute(RECORD, history)
        return Lease(
            key=LeaseKey(job_id=row.id, epoch=row.epoch, token=token),
            expires_at=until,
            seconds=seconds,
            point=row.point,
            point_digest=row.point_digest,
            attempt=row.attempts,
            max_attempts=row.max_attempts,
        )
    return None
