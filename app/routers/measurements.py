"""Measurements: what the points gave."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from app.answers import json_answer, json_bytes
from app.dependencies import jobs_of, json_of_body
from app.job_schemas import (
    MEASUREMENTS_BODY,
    RELEASE_BODY,
    ImportedAnswer,
    MeasurementAnswer,
    MeasurementListing,
)
from app.openapi import problems
from app.parameters import KNOWN
from app.routers.probe_jobs import Campaign, Cursor
from app.security import MEASURE, Administering

router = APIRouter(prefix="/v1/measurements", tags=["measuring"], responses=problems())

MeasurementId = Annotated[int, Path(ge=1, le=2**62, description="The measurement's number.")]
Digest = Annotated[str | None, Query(pattern="^[0-9a-f]{64}$", description="Those of a point, by its digest.")]
JobNumber = Annotated[int | None, Query(ge=1, le=2**62, description="That of a job.")]
Limit = Annotated[int, Query(ge=1, le=100, description="At most so many.")]
Quarantined = Literal["accepted", "quarantined"] | None


@router.get("", dependencies=[MEASURE, KNOWN], responses={200: {"model": MeasurementListing}, **problems(422)})
async def list_measurements(
    request: Request,
    state: Quarantined = None,
    campaign: Campaign = None,
    point: Digest = None,
    job: JobNumber = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Response:
    """List the measurements, newest first."""
    asked = {"state": state, "campaign": campaign, "point": point, "job": job, "limit": limit, "cursor": cursor}
    return json_answer(await jobs_of(request).measurements(**asked))


@router.post(
    "",
    dependencies=[MEASURE],
    openapi_extra=MEASUREMENTS_BODY,
    status_code=201,
    responses={201: {"model": ImportedAnswer}, 200: {"model": ImportedAnswer}, **problems(400, 413, 415, 422)},
)
async def take_in(request: Request) -> Response:
    """Keep measurements that no lease was for, all or none: 201, or 200 where all of them were here."""
    answer, is_new = await jobs_of(request).take_in(await json_of_body(request))
    return Response(json_bytes(answer), status_code=201 if is_new else 200, media_type="application/json")


@router.get("/{id}", dependencies=[MEASURE], responses={200: {"model": MeasurementAnswer}, **problems(404, 422)})
async def show(request: Request, id: MeasurementId) -> Response:
    """Show a measurement."""
    return json_answer(await jobs_of(request).measurement(id))


@router.post(
    "/{id}/release",
    openapi_extra=RELEASE_BODY,
    responses={200: {"model": MeasurementAnswer}, **problems(400, 404, 413, 415, 422)},
)
async def release(request: Request, id: MeasurementId, principal: Administering) -> Response:
    """Let fits read a quarantined measurement; a campaign that failed for want of it is fitted again."""
    return json_answer(await jobs_of(request).release(id, await json_of_body(request), by=principal.name))
