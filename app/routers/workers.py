"""Workers: the machines that lend their GPUs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path
from starlette.requests import Request
from starlette.responses import Response

from app.answers import json_answer
from app.dependencies import jobs_of, json_of_body
from app.job_schemas import DRAINING_BODY, HEARTBEAT_BODY, HeartbeatAnswer, WorkerAnswer, Workers
from app.openapi import problems
from app.parameters import KNOWN
from app.security import ADMIN, MEASURE, WORK

router = APIRouter(prefix="/v1/workers", tags=["workers"], responses=problems())

WorkerId = Annotated[str, Path(min_length=1, max_length=200, description="The worker's own name for itself.")]
BODY = problems(400, 413, 415, 422)


@router.get("", dependencies=[MEASURE, KNOWN], responses={200: {"model": Workers}, **problems(422)})
async def list_workers(request: Request) -> Response:
    """List the workers that were ever seen, with when that was last."""
    return json_answer(await jobs_of(request).workers())


@router.post(
    "/{id}/heartbeat",
    dependencies=[WORK],
    openapi_extra=HEARTBEAT_BODY,
    responses={200: {"model": HeartbeatAnswer}, **BODY},
)
async def heartbeat(request: Request, id: WorkerId) -> Response:
    """Say that a worker lives; learn whether it is to take no more jobs, and whether its job was cancelled."""
    return json_answer(await jobs_of(request).heartbeat(id, await json_of_body(request)))


@router.post(
    "/{id}/draining",
    dependencies=[ADMIN],
    openapi_extra=DRAINING_BODY,
    responses={200: {"model": WorkerAnswer}, **BODY, **problems(404)},
)
async def drain(request: Request, id: WorkerId) -> Response:
    """Give a worker no further job, or jobs again."""
    return json_answer(await jobs_of(request).drain(id, await json_of_body(request)))
