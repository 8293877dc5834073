"""Observations: what people's own training runs showed beside their plan."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.answers import json_answer, json_bytes
from app.dependencies import json_of_body
from app.observation_schemas import OBSERVATIONS_BODY, KeptAnswer, ObservationListing
from app.observations.judging import State
from app.observations.service import Observations
from app.openapi import problems
from app.parameters import KNOWN
from app.routers.measurements import Limit
from app.routers.probe_jobs import Cursor
from app.security import MEASURE, Measuring

router = APIRouter(prefix="/v1/observations", tags=["measuring"], responses=problems())


@router.get("", dependencies=[MEASURE, KNOWN], responses={200: {"model": ObservationListing}, **problems(422)})
async def list_observations(
    request: Request, state: State | None = None, cursor: Cursor = None, limit: Limit = 50
) -> Response:
    """List the observations, newest first; `beyond` are those that lie beyond the bound."""
    return json_answer(await _observations(request).page(state=state, limit=limit, cursor=cursor))


@router.post(
    "",
    openapi_extra=OBSERVATIONS_BODY,
    status_code=201,
    responses={201: {"model": KeptAnswer}, 200: {"model": KeptAnswer}, **problems(400, 413, 415, 422)},
)
async def take_in(request: Request, principal: Measuring) -> Response:
    """Keep what was seen of training runs, all or none: 201, or 200 where all of it was here. No fit reads it."""
    answer, is_new = await _observations(request).take_in(await json_of_body(request), submitter=principal.name)
    return Response(json_bytes(answer), status_code=201 if is_new else 200, media_type="application/json")


def _observations(request: Request) -> Observations:
    observations: Observations = request.state.observations
    return observations
