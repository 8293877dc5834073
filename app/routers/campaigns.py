"""Campaigns: the points that pin a model, and the calibration that is made of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from threading import Event
from typing import Annotated, Any

from fastapi import APIRouter, Path
from sqlalchemy.exc import SQLAlchemyError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from app.answers import json_answer
from app.dependencies import jobs_of
from app.job_schemas import CampaignAnswer, CampaignListing
from app.jobs.service import Jobs
from app.openapi import problems
from app.parameters import KNOWN
from app.queue import CampaignState
from app.routers.measurements import Limit
from app.routers.probe_jobs import Cursor
from app.security import MEASURE, Gate
from estimator.errors import CtxplanError

router = APIRouter(prefix="/v1/campaigns", tags=["measuring"], dependencies=[MEASURE], responses=problems())

CampaignId = Annotated[int, Path(ge=1, le=2**62, description="The campaign's number.")]
EVENTS = "text/event-stream"
QUIET_SECONDS = 15.0
"""After so long without news, a line that says nothing keeps the connection open."""


@router.get("", dependencies=[KNOWN], responses={200: {"model": CampaignListing}, **problems(422)})
async def list_campaigns(
    request: Request, state: CampaignState | None = None, cursor: Cursor = None, limit: Limit = 50
) -> Response:
    """List the campaigns, newest first."""
    return json_answer(await jobs_of(request).campaigns(state=state, limit=limit, cursor=cursor))


@router.get("/{id}", responses={200: {"model": CampaignAnswer}, **problems(404, 422)})
async def show(request: Request, id: CampaignId) -> Response:
    """Show a campaign: how many of its jobs are in which state, and in the end what was fitted."""
    return json_answer(await jobs_of(request).campaign(id))


@router.post("/{id}/cancellation", responses={200: {"model": CampaignAnswer}, **problems(404, 409, 422)})
async def cancel(request: Request, id: CampaignId) -> Response:
    """End a campaign that measures, and its jobs that have not ended."""
    return json_answer(await jobs_of(request).cancel_campaign(id))


@router.get(
    "/{id}/events",
    response_class=Response,
    responses={200: {"content": {EVENTS: {"schema": {"type": "string"}}}}, **problems(404, 422)},
)
async def events(request: Request, id: CampaignId) -> Response:
    """Follow a campaign by server-sent events: one of type `state` at once and with each change, until it has ended."""
    jobs = jobs_of(request)
    gate: Gate = request.state.gate
    first = await jobs.campaign(id)
    may_see = partial(gate.lets_in, request, "measure")
    told = follow(jobs, id, first, request.state.event_seconds, request.state.stopping, may_see=may_see)
    return StreamingResponse(told, media_type=EVENTS, headers={"cache-control": "no-store"})


async def follow(
    jobs: Jobs,
    campaign_id: int,
    first: dict[str, Any],
    seconds: float,
    stopping: Event,
    *,
    may_see: Callable[[], Awaitable[bool]],
) -> AsyncIterator[str]:
    """The events of a campaign as text. Each has a number, so that a reader can tell which it has seen.

    Args:
        may_see: whether whoever follows would still be let in; asked before each look, for a stream lasts for hours.
            Where it is no longer so, the stream ends, and who comes again is told why.
    """
    number, quiet, shown = 1, 0.0, first
    yield _event(number, first)
    while shown["state"] == CampaignState.MEASURING and not stopping.is_set():
        await asyncio.sleep(seconds)
        quiet += seconds
        try:
            if not await may_see():
                return
            now = await jobs.campaign(campaign_id)
        except (CtxplanError, SQLAlchemyError):
            now = shown  # the database is away: what is known still holds, and nothing new is told
        if now != shown:
            number, quiet, shown = number + 1, 0.0, now
            yield _event(number, now)
        elif quiet >= QUIET_SECONDS:
            quiet = 0.0
            yield ": nothing new\n\n"


def _event(number: int, campaign: dict[str, Any]) -> str:
    return f"id: {number}\nevent: state\ndata: {json.dumps(campaign, separators=(',', ':'))}\n\n"
