"""The table of observations: each document once, listed newest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Table, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database.models import ObservationModel
from app.jobs.paging import Page, cursor_of, last_of
from app.observations.judging import Judged, State
from app.queue.requests import digest_of
from app.queue.tables import insert_new

OBSERVATIONS = cast(Table, ObservationModel.__table__)


async def keep(
    connection: AsyncConnection,
    documents: Sequence[Mapping[str, Any]],
    judged: Sequence[Judged],
    now: datetime,
    *,
    submitter: str,
) -> list[tuple[Any, bool]]:
    """Keep observations; of each its row, and whether it is new. One that was here stands as it was judged then.

    They are added by their digests, one order for all transactions, so that two with the same ones never wait for each
    other; their ids are in the order in which they came.
    """
    ids = await _new_ids(connection, len(documents))
    rows = [
        {"id": id, "digest": digest_of(document), "document": dict(document), **asdict(one)}
        for id, document, one in zip(ids, documents, judged, strict=True)
    ]
    found: dict[int, tuple[Any, bool]] = {}
    for row in sorted(rows, key=lambda row: str(row["digest"])):
        found[row["id"]] = await _keep(connection, {**row, "submitter": submitter, "received_at": now})
    return [found[id] for id in ids]


async def _keep(connection: AsyncConnection, row: Mapping[str, Any]) -> tuple[Any, bool]:
    added = insert_new(connection, OBSERVATIONS).values(**row).on_conflict_do_nothing(index_elements=["digest"])
    is_new = (await connection.execute(added.returning(OBSERVATIONS.c.id))).first() is not None
    found = await connection.execute(select(OBSERVATIONS).where(OBSERVATIONS.c.digest == row["digest"]))
    return found.one(), is_new


async def _new_ids(connection: AsyncConnection, count: int) -> Sequence[int]:
    """Ascending ids that nobody else has; SQLite's writer is alone, and counts on from the last one."""
    if connection.dialect.name == "sqlite":
        last = (await connection.execute(select(func.coalesce(func.max(OBSERVATIONS.c.id), 0)))).scalar_one()
        return range(last + 1, last + 1 + count)
    sequence = func.pg_get_serial_sequence(OBSERVATIONS.name, OBSERVATIONS.c.id.name)
    drawn = await connection.execute(select(func.nextval(sequence)).select_from(func.generate_series(1, count)))
    return sorted(drawn.scalars())


async def list_observations(
    connection: AsyncConnection, *, state: State | None, limit: int, cursor: str | None
) -> Page:
    """A page of them, newest first. Raises InvalidCursor."""
    asked = [state]
    query = select(OBSERVATIONS).order_by(OBSERVATIONS.c.id.desc()).limit(limit + 1)
    if state is not None:
        query = query.where(OBSERVATIONS.c.state == state)
    if cursor is not None:
        query = query.where(OBSERVATIONS.c.id < last_of(cursor, asked))
    rows = (await connection.execute(query)).all()
    shown = rows[:limit]
    return Page(items=tuple(shown), next=cursor_of(shown[-1].id, asked) if len(rows) > limit else None)
