"""The workers, as they last described themselves."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.queue.errors import UnknownWorker
from app.queue.requests import WorkerFacts, check_name
from app.queue.tables import WORKERS, insert_new
from app.queue.views import WorkerView


async def see_worker(connection: AsyncConnection, worker: WorkerFacts, now: datetime, *, name: str) -> WorkerView:
    """Remember what a worker says of itself, and say whether it is draining: that is not its own to change.

    Raises:
        InvalidSubmission: the name.
    """
    check_name("name", name)
    facts = {
        "name": name,
        "gpu": worker.gpu,
        "total_bytes": worker.total_bytes,
        "versions": dict(worker.versions),
        "last_seen_at": now,
    }
    seen = insert_new(connection, WORKERS).values(id=worker.id, draining=False, **facts)
    seen = seen.on_conflict_do_update(index_elements=["id"], set_=facts).returning(WORKERS)
    return WorkerView(**(await connection.execute(seen)).one()._mapping)


async def drain_worker(connection: AsyncConnection, worker_id: str, *, draining: bool) -> WorkerView:
    """Give a worker no further job, or jobs again. Raises UnknownWorker."""
    drained = update(WORKERS).where(WORKERS.c.id == worker_id).values(draining=draining).returning(WORKERS)
    row = (await connection.execute(drained)).one_or_none()
    if row is None:
        raise UnknownWorker(worker_id)
    return WorkerView(**row._mapping)


async def list_workers(connection: AsyncConnection) -> tuple[WorkerView, ...]:
    """All workers that were ever seen, by id."""
    rows = await connection.execute(select(WORKERS).order_by(WORKERS.c.id))
    return tuple(WorkerView(**row._mapping) for row in rows)
