"""Leases: a worker asks for a job, holds on to it, and ends it with a result, a failure, or by giving it back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Path
from starlette.requests import Request
from starlette.responses import Response

from app.answers import json_answer, json_bytes
from app.dependencies import jobs_of, json_of_body
from app.job_schemas import (
    FAILURE_BODY,
    LEASING_BODY,
    RESULT_BODY,
    AcceptedAnswer,
    LeaseAnswer,
    RenewedAnswer,
    StateAnswer,
)
from app.openapi import problems
from app.queue import LeaseKey
from app.routers.probe_jobs import JobId
from app.security import WORK

router = APIRouter(prefix="/v1/probe-jobs", tags=["workers"], dependencies=[WORK], responses=problems())

IDLE_SECONDS = 10
"""After how long a worker for whom there was nothing is to ask again."""
BODY = problems(400, 413, 415, 422)
HELD = problems(404, 409, 422)
OF_LEASE = "/{id:job}/leases/{epoch}"
Epoch = Annotated[int, Path(ge=1, le=2**31 - 1, description="Which lease of the job.")]
Token = Annotated[str, Header(alias="Lease-Token", min_length=1, max_length=200, description="The lease's secret.")]


@router.post(
    "/leases",
    openapi_extra=LEASING_BODY,
    responses={200: {"model": LeaseAnswer}, 204: {"description": "Nothing fits this worker now"}, **BODY},
)
async def lease(request: Request) -> Response:
    """Lease the best job that a worker can do; 204, with `Retry-After`, where there is none."""
    found = await jobs_of(request).lease(await json_of_body(request))
    if found is None:
        # Who waits for no longer than a lease takes over soon what another worker died over.
        seconds = min(IDLE_SECONDS, jobs_of(request).backend.limits.lease_seconds)
        return Response(status_code=204, headers={"retry-after": str(seconds)})
    return Response(json_bytes(found), media_type="application/json", headers={"cache-control": "no-store"})


@router.post(f"{OF_LEASE}/renewal", responses={200: {"model": RenewedAnswer}, **HELD})
async def renew(request: Request, id: JobId, epoch: Epoch, token: Token) -> Response:
    """Hold on to a job. `cancelled` says that nobody wants it any more."""
    return json_answer(await jobs_of(request).renew(LeaseKey(job_id=id, epoch=epoch, token=token)))


@router.post(
    f"{OF_LEASE}/result",
    openapi_extra=RESULT_BODY,
    status_code=201,
    responses={201: {"model": AcceptedAnswer}, 200: {"model": AcceptedAnswer}, **BODY, **HELD},
)
async def complete(request: Request, id: JobId, epoch: Epoch, token: Token) -> Response:
    """End a job with its measurement: 201, or 200 where the same was sent before. A late one is kept aside, 409."""
    key = LeaseKey(job_id=id, epoch=epoch, token=token)
    answer, again = await jobs_of(request).complete(key, await json_of_body(request))
    return Response(json_bytes(answer), status_code=200 if again else 201, media_type="application/json")


@router.post(f"{OF_LEASE}/failure", openapi_extra=FAILURE_BODY, responses={200: {"model": StateAnswer}, **BODY, **HELD})
async def fail(request: Request, id: JobId, epoch: Epoch, token: Token) -> Response:
    """Say that an attempt gave no result. The job is queued again while it has attempts left."""
    key = LeaseKey(job_id=id, epoch=epoch, token=token)
    return json_answer(await jobs_of(request).fail(key, await json_of_body(request)))


@router.post(f"{OF_LEASE}/return", responses={200: {"model": StateAnswer}, **HELD})
async def give_back(request: Request, id: JobId, epoch: Epoch, token: Token) -> Response:
    """Give a job back untouched: the attempt does not count."""
    return json_answer(await jobs_of(request).give_back(LeaseKey(job_id=id, epoch=epoch, token=token)))
