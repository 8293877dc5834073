"""What was measured: listed, and taken in where no lease was for it.

A measurement always stands for a job. One that comes without a lease is submitted, leased and ended in one transaction,
so that the history says where it is from and the audit holds it to the same rules.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.jobs.errors import UnknownMeasurement
from app.jobs.paging import Page, cursor_of, last_of
from app.queue import JobRequest, LeaseKey, State, Submission
from app.queue.history import RECORD, event
from app.queue.requests import digest_of
from app.queue.results import complete
from app.queue.states import EventKind
from app.queue.submit import submit
from app.queue.tables import JOBS, MEASUREMENTS
from app.queue.tokens import hash_of

IMPORTS = "measurements"
"""Whose submissions these are: the idempotency key is the document's digest, whoever sends it."""
LEASE_SECONDS = 60
_VIEW = select(MEASUREMENTS, JOBS.c.campaign_id).join(JOBS, JOBS.c.id == MEASUREMENTS.c.job_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """A measurement to be taken in: its point, the document, and why no fit is to read it, if so."""

    point: Mapping[str, Any]
    gpu: str | None
    document: Mapping[str, Any]
    quarantine: str | None


async def get_measurement(connection: AsyncConnection, measurement_id: int) -> Any:
    """One row. Raises UnknownMeasurement."""
    row = (await connection.execute(_VIEW.where(MEASUREMENTS.c.id == measurement_id))).one_or_none()
    if row is None:
        raise UnknownMeasurement(measurement_id)
    return row


async def list_measurements(
    connection: AsyncConnection,
    *,
    state: str | None = None,
    campaign: int | None = None,
    point: str | None = None,
    job: int | None = None,
    limit: int,
    cursor: str | None,
) -> Page:
    """A page of them, newest first. Raises InvalidCursor."""
    asked = [state, campaign, point, job]
    query = _VIEW.order_by(MEASUREMENTS.c.id.desc()).limit(limit + 1)
    columns = (MEASUREMENTS.c.state, JOBS.c.campaign_id, MEASUREMENTS.c.point_digest, MEASUREMENTS.c.job_id)
    for column, value in zip(columns, asked, strict=True):
        if value is not None:
            query = query.where(column == value)
    if cursor is not None:
        query = query.where(MEASUREMENTS.c.id < last_of(cursor, asked))
    rows = (await connection.execute(query)).all()
    shown = rows[:limit]
    return Page(items=tuple(shown), next=cursor_of(shown[-1].id, asked) if len(rows) > limit else None)


async def accepted_documents(connection: AsyncConnection, campaign: int | None = None) -> Sequence[dict[str, Any]]:
    """Every document that a fit may read, or those of a campaign, oldest first."""
    query = select(MEASUREMENTS.c.document).where(MEASUREMENTS.c.state == "accepted").order_by(MEASUREMENTS.c.id)
    if campaign is not None:
        query = query.join(JOBS, JOBS.c.id == MEASUREMENTS.c.job_id).where(JOBS.c.campaign_id == campaign)
    return tuple((await connection.execute(query)).scalars())


async def count_accepted(connection: AsyncConnection, campaign: int) -> int:
    """How many of a campaign's documents a fit may read."""
    query = select(func.count()).select_from(MEASUREMENTS).join(JOBS, JOBS.c.id == MEASUREMENTS.c.job_id)
    mine = query.where(MEASUREMENTS.c.state == "accepted", JOBS.c.campaign_id == campaign)
    return (await connection.execute(mine)).scalar_one()


async def take_in(connection: AsyncConnection, one: Imported, now: datetime, *, token: str) -> tuple[Any, bool]:
    """Keep a measurement that no lease was for; its row, and whether it is new. The same document is kept once."""
    request = JobRequest(point=one.point, gpu=one.gpu, max_attempts=1)
    key = digest_of(one.document)
    submission = _Import(submitter=IMPORTS, jobs=(request,), idempotency_key=key, document_digest=key)
    submitted = await submit(connection, submission, now)
    (job_id,) = submitted.job_ids
    if not submitted.replayed:
        await _lease(connection, job_id, now, token)
        lease = LeaseKey(job_id=job_id, epoch=1, token=token)
        done = await complete(connection, lease, now, document=one.document, quarantine=one.quarantine)
        assert done is not None, "a job that nobody else has seen was taken"  # noqa: S101
    row = (await connection.execute(_VIEW.where(MEASUREMENTS.c.job_id == job_id))).one()
    return row, not submitted.replayed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Import(Submission):
    """The document is what was asked for."""

    document_digest: str

    @property
    def body_digest(self) -> str:
        return self.document_digest


async def _lease(connection: AsyncConnection, job_id: int, now: datetime, token: str) -> None:
    """Give a job of this transaction, which no claim can see, to whoever has measured it."""
    taken = {
        "state": State.LEASED,
        "attempts": 1,
        "epoch": 1,
        "last_seq": 2,
        "lease_token_hash": hash_of(token),
        "lease_worker": IMPORTS,
        "lease_seconds": LEASE_SECONDS,
        "leased_at": now,
        "lease_renewed_at": now,
        "lease_expires_at": now + timedelta(seconds=LEASE_SECONDS),
    }
    await connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(**taken))
    detail = {"token_hash": hash_of(token), "seconds": LEASE_SECONDS}
    await connection.execute(RECORD, event(job_id, 2, now, EventKind.LEASED, epoch=1, worker=IMPORTS, detail=detail))
