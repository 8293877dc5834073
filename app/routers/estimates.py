"""What a job needs, and whether it fits."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.answers import json_answer
from app.dependencies import JobBody, JobRoute, plans_of
from app.openapi import problems
from app.schemas import JOB_BODY, EstimateAnswer
from app.security import PLAN

router = APIRouter(
    route_class=JobRoute,
    prefix="/v1/estimates",
    tags=["plans"],
    dependencies=[PLAN],
    responses=problems(400, 413, 415, 422),
)


@router.post("", openapi_extra=JOB_BODY, responses={200: {"model": EstimateAnswer}})
async def estimate(request: Request, job: JobBody) -> Response:
    """Estimate a job's GPU memory, term by term, and say whether it fits."""
    return json_answer((await plans_of(request).estimate(job)).to_json())
