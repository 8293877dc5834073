"""Believing a quarantined measurement after all: an operator's decision, which the job's history keeps."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.jobs import campaigns
from app.jobs.measurements import get_measurement
from app.queue.history import FOR_CHANGE, RECORD, event
from app.queue.results import NEXT_SEQ
from app.queue.states import EventKind
from app.queue.tables import CAMPAIGNS, MEASUREMENTS


async def release(connection: AsyncConnection, measurement_id: int, now: datetime, *, by: str, why: str | None) -> None:
    """Let fits read a measurement that was quarantined.

    One that is accepted stays as it is. A campaign that has failed, for want of what could be fitted, is tried again.

    Raises:
        UnknownMeasurement: there is none.
    """
    row = await get_measurement(connection, measurement_id)
    if row.campaign_id is not None:
        # First, as whoever ends a campaign does: it is ended either before this or with this in sight.
        await connection.execute(select(CAMPAIGNS.c.id).where(CAMPAIGNS.c.id == row.campaign_id).with_for_update())
    job = (await connection.execute(FOR_CHANGE, {"job_id": row.job_id})).one()
    row = await get_measurement(connection, measurement_id)
    if row.state == "accepted":
        return
    accepted = update(MEASUREMENTS).where(MEASUREMENTS.c.id == measurement_id)
    await connection.execute(accepted.values(state="accepted", quarantine_reason=None))
    seq = (await connection.execute(NEXT_SEQ, {"numbered_job_id": row.job_id})).scalar_one()
    detail = {"measurement": measurement_id, "quarantined": row.quarantine_reason, "by": by, "why": why}
    history = event(row.job_id, seq, now, EventKind.RELEASED, epoch=job.epoch, detail=detail)
    await connection.execute(RECORD, history)
    if row.campaign_id is not None:
        await campaigns.begin_again(connection, row.campaign_id)
