"""Probe jobs: points to be measured by whoever lends a GPU."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from app.answers import json_answer, json_bytes
from app.dependencies import jobs_of, json_of_body
from app.job_schemas import SUBMISSION_BODY, JobAnswer, JobListing, JobWithHistory, SubmittedAnswer
from app.openapi import problems
from app.parameters import KNOWN
from app.queue import State
from app.security import MEASURE, Measuring


class _IdConvertor(Convertor[str]):
    """What stands for an id in a path: not `leases`, which is a route itself and refuses other methods."""

    regex = "(?!leases(?:/|$))[^/]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("job", _IdConvertor())

router = APIRouter(prefix="/v1/probe-jobs", tags=["measuring"], responses=problems())

JobId = Annotated[int, Path(ge=1, le=2**62, description="The job's number.")]
Campaign = Annotated[int | None, Query(ge=1, le=2**62, description="Those of a campaign alone.")]
Limit = Annotated[int, Query(ge=1, le=500, description="At most so many.")]
Cursor = Annotated[str | None, Query(max_length=500, description="Go on after the last page: its `next`.")]
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        pattern="^[!-~]+$",
        description="A request that is sent again with the same key is taken once.",
    ),
]


@router.post(
    "",
    openapi_extra=SUBMISSION_BODY,
    status_code=201,
    responses={201: {"model": SubmittedAnswer}, 200: {"model": SubmittedAnswer}, **problems(400, 409, 413, 415, 422)},
)
async def submit(request: Request, principal: Measuring, key: Key = None) -> Response:
    """Queue points to be measured, or the points that pin a model: 201, or 200 where the key was used for the same."""
    answer, again = await jobs_of(request).submit(await json_of_body(request), submitter=principal.name, key=key)
    return Response(json_bytes(answer), status_code=200 if again else 201, media_type="application/json")


@router.get("", dependencies=[MEASURE, KNOWN], responses={200: {"model": JobListing}, **problems(422)})
async def list_jobs(
    request: Request,
    state: State | None = None,
    campaign: Campaign = None,
    cursor: Cursor = None,
    limit: Limit = 100,
) -> Response:
    """List the jobs, newest first."""
    return json_answer(await jobs_of(request).page(state=state, campaign=campaign, limit=limit, cursor=cursor))


@router.get("/{id:job}", dependencies=[MEASURE], responses={200: {"model": JobWithHistory}, **problems(404, 422)})
async def show(request: Request, id: JobId) -> Response:
    """Show a job with all that has happened to it."""
    return json_answer(await jobs_of(request).job(id))


@router.post(
    "/{id:job}/cancellation", dependencies=[MEASURE], responses={200: {"model": JobAnswer}, **problems(404, 409, 422)}
)
async def cancel(request: Request, id: JobId) -> Response:
    """End a job that is queued or leased. Its worker learns of it with its next renewal or heartbeat."""
    return json_answer(await jobs_of(request).cancel(id))


@router.post(
    "/{id:job}/retry", dependencies=[MEASURE], responses={200: {"model": JobAnswer}, **problems(404, 409, 422)}
)
async def retry(request: Request, id: JobId) -> Response:
    """Queue a job again that failed, was cancelled or expired, with all its attempts."""
    return json_answer(await jobs_of(request).retry(id))
