"""The campaigns that jobs belong to. `app.queue.submit` begins them and adds to them."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.queue.errors import JobStateConflict, UnknownCampaign
from app.queue.history import JOB_COLUMNS, JobRow, Move, move
from app.queue.states import CampaignState, EventKind, State
from app.queue.tables import CAMPAIGNS, JOBS
from app.queue.views import CampaignView


async def get_campaign(connection: AsyncConnection, campaign_id: int) -> CampaignView:
    """A campaign and the states of its jobs. Raises UnknownCampaign."""
    row = (await connection.execute(select(CAMPAIGNS).where(CAMPAIGNS.c.id == campaign_id))).one_or_none()
    if row is None:
        raise UnknownCampaign(campaign_id)
    counts = await connection.execute(
        select(JOBS.c.state, func.count()).where(JOBS.c.campaign_id == campaign_id).group_by(JOBS.c.state)
    )
    return CampaignView(
        id=row.id,
        model=row.model,
        state=CampaignState(row.state),
        points=row.points,
        jobs={State(state): count for state, count in counts},
        calibration_id=row.calibration_id,
        created_at=row.created_at,
        finished_at=row.finished_at,
    )


async def finish_campaign(
    connection: AsyncConnection, campaign_id: int, state: CampaignState, now: datetime, *, calibration_id: str | None
) -> None:
    """End a campaign that is measuring; cancel what of its jobs has not ended.

    Raises:
        UnknownCampaign: there is none. JobStateConflict: it has ended already, or would be measuring still; or a
            calibration is named where nothing was done.
    """
    if state is CampaignState.MEASURING or (calibration_id is not None and state is not CampaignState.DONE):
        raise JobStateConflict(f"a campaign does not end as {state}", key="state", allowed="done, failed, cancelled")
    row = await _locked(connection, campaign_id)
    if row.state != CampaignState.MEASURING:
        raise JobStateConflict(f"the campaign is {row.state}", key="campaign_id", allowed="one that is measuring")
    unfinished = await connection.execute(
        select(*JOB_COLUMNS)
        .where(JOBS.c.campaign_id == campaign_id, JOBS.c.state.in_([State.QUEUED, State.LEASED]))
        .order_by(JOBS.c.id)  # one order for all who lock several
        .with_for_update()
    )
    await move(connection, [Move(row=job, kind=EventKind.CANCELLED) for job in unfinished.all()], now)
    ended = update(CAMPAIGNS).where(CAMPAIGNS.c.id == campaign_id)
    await connection.execute(ended.values(state=state, calibration_id=calibration_id, finished_at=now))


async def _locked(connection: AsyncConnection, campaign_id: int) -> JobRow:
    found = await connection.execute(select(CAMPAIGNS).where(CAMPAIGNS.c.id == campaign_id).with_for_update())
    row = found.one_or_none()
    if row is None:
        raise UnknownCampaign(campaign_id)
    return row
