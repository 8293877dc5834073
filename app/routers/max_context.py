"""How long a context a job can have."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.answers import json_answer
from app.dependencies import JobBody, JobRoute, plans_of
from app.openapi import problems
from app.schemas import JOB_BODY, MaxContextAnswer
from app.security import PLAN

router = APIRouter(
    route_class=JobRoute,
    prefix="/v1/max-context",
    tags=["plans"],
    dependencies=[PLAN],
    responses=problems(400, 413, 415, 422),
)


@router.post("", openapi_extra=JOB_BODY, responses={200: {"model": MaxContextAnswer}})
async def max_context(request: Request, job: JobBody) -> Response:
    """Find the longest context of a job; its `max_seq_length` is ignored."""
    return json_answer((await plans_of(request).max_context(job)).to_json())
