"""The table of observations: each document once, listed newest first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Table, select
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database.models import ObservationModel
from app.jobs.paging import Page, cursor_of, last_of
from app.observations.judging import Judged, State
from app.queue.requests import digest_of
from app.queue.tables import insert_new

OBSERVATIONS = cast(Table, ObservationModel.__table__)


async def keep(
    connection: AsyncConnection, document: Mapping[str, Any], judged: Judged, now: datetime, *, submitter: str
) -> tuple[Any, bool]:
    """Keep an observation; its row, and whether it is new. One that was here stands as it was judged then."""
    digest = digest_of(document)
    row = {"digest": digest, "document": dict(document), "submitter": submitter, "received_at": now, **asdict(judged)}
    added = insert_new(connection, OBSERVATIONS).values(**row).on_conflict_do_nothing(index_elements=["digest"])
    is_new = (await connection.execute(added.returning(OBSERVATIONS.c.id))).first() is not None
    found = await connection.execute(select(OBSERVATIONS).where(OBSERVATIONS.c.digest == digest))
    return found.one(), is_new


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
