"""Campaigns as the service keeps them: how each is to end, which of them are due, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import Table, exists, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database.models import CampaignFitModel
from app.jobs.paging import Page, cursor_of, last_of
from app.jobs.reading import Activate
from app.queue import CampaignState, CampaignView, State
from app.queue.campaigns import get_campaign
from app.queue.tables import CAMPAIGNS, JOBS, insert_new

FITS = cast(Table, CampaignFitModel.__table__)
ON_ITS_WAY, LATELY = timedelta(seconds=30), timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """A campaign with how it is to end, what became of it, and how many fits of it have failed. ``activate`` is None
    where it was begun elsewhere."""

    view: CampaignView
    activate: Activate | None
    outcome: Mapping[str, Any] | None
    attempts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Activated:
    """What a campaign said to have activated: the digest of a calibration, and why."""

    campaign: int
    calibration: str
    why: str
    finished_at: datetime


async def begin(connection: AsyncConnection, campaign_id: int, activate: Activate) -> None:
    """Note how a campaign that was begun in the same transaction is to end."""
    await connection.execute(insert(CampaignFitModel).values(campaign_id=campaign_id, activate=activate, outcome=None))


async def get(connection: AsyncConnection, campaign_id: int) -> Kept:
    """A campaign. Raises UnknownCampaign."""
    view = await get_campaign(connection, campaign_id)
    row = (await connection.execute(select(FITS).where(FITS.c.campaign_id == campaign_id))).one_or_none()
    if row is None:
        return Kept(view=view, activate=None, outcome=None)
    return Kept(view=view, activate=row.activate, outcome=row.outcome, attempts=row.attempts)


async def list_campaigns(
    connection: AsyncConnection, *, state: CampaignState | None, limit: int, cursor: str | None
) -> Page:
    """A page of them, newest first. Raises InvalidCursor."""
    asked = [state]
    query = select(CAMPAIGNS.c.id).order_by(CAMPAIGNS.c.id.desc()).limit(limit + 1)
    if state is not None:
        query = query.where(CAMPAIGNS.c.state == state)
    if cursor is not None:
        query = query.where(CAMPAIGNS.c.id < last_of(cursor, asked))
    ids = (await connection.execute(query)).scalars().all()
    items = [await get(connection, one) for one in ids[:limit]]
    return Page(items=tuple(items), next=cursor_of(ids[limit - 1], asked) if len(ids) > limit else None)


async def due(connection: AsyncConnection) -> Sequence[int]:
    """The campaigns that measure, and have no job left to be measured."""
    open_job = exists().where(JOBS.c.campaign_id == CAMPAIGNS.c.id, JOBS.c.state.in_([State.QUEUED, State.LEASED]))
    query = select(CAMPAIGNS.c.id).where(CAMPAIGNS.c.state == CampaignState.MEASURING, ~open_job)
    return (await connection.execute(query.order_by(CAMPAIGNS.c.id))).scalars().all()


async def activated_lately(connection: AsyncConnection, now: datetime) -> Sequence[Activated]:
    """The activations that campaigns of the last day have said, but for those that may still be on their way."""
    query = (
        select(CAMPAIGNS.c.id, CAMPAIGNS.c.calibration_id, CAMPAIGNS.c.finished_at, FITS.c.outcome)
        .join(FITS, FITS.c.campaign_id == CAMPAIGNS.c.id)
        .where(CAMPAIGNS.c.state == CampaignState.DONE)
        .where(CAMPAIGNS.c.finished_at.between(now - LATELY, now - ON_ITS_WAY))
        .order_by(CAMPAIGNS.c.finished_at)
    )
    return [
        Activated(campaign=row.id, calibration=row.calibration_id, why=row.outcome["why"], finished_at=row.finished_at)
        for row in await connection.execute(query)
        if row.outcome and row.outcome["activated"]
    ]


async def begin_again(connection: AsyncConnection, campaign_id: int) -> None:
    """Have a campaign fitted once more, if it has failed."""
    failed = update(CAMPAIGNS).where(CAMPAIGNS.c.id == campaign_id, CAMPAIGNS.c.state == CampaignState.FAILED)
    again = await connection.execute(failed.values(state=CampaignState.MEASURING, finished_at=None))
    if again.rowcount:
        of_campaign = update(CampaignFitModel).where(CampaignFitModel.campaign_id == campaign_id)
        await connection.execute(of_campaign.values(outcome=None, attempts=0))


async def count_attempt(connection: AsyncConnection, campaign_id: int, *, seen: int) -> bool:
    """Count a fit that has failed. False where another process has counted one since ``seen`` were read: several that
    fail at the same time are one attempt."""
    row = {"campaign_id": campaign_id, "activate": "never", "outcome": None}
    await connection.execute(insert_new(connection, FITS).values(**row).on_conflict_do_nothing())
    counted = update(FITS).where(FITS.c.campaign_id == campaign_id, FITS.c.attempts == seen).values(attempts=seen + 1)
    return (await connection.execute(counted)).rowcount == 1


async def note(connection: AsyncConnection, campaign_id: int, outcome: Mapping[str, Any]) -> None:
    """Say what became of a campaign. One that was begun without the service has no place for it, and is given one."""
    noted = update(CampaignFitModel).where(CampaignFitModel.campaign_id == campaign_id).values(outcome=dict(outcome))
    if (await connection.execute(noted)).rowcount == 0:
        row = {"campaign_id": campaign_id, "activate": "never", "outcome": dict(outcome)}
        await connection.execute(insert(CampaignFitModel).values(**row))
