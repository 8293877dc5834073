"""What to change in a job."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from app.advice import PlanAnswer
from app.answers import json_answer
from app.dependencies import JobBody, plans_of, while_connected
from app.openapi import problems
from app.schemas import JOB_BODY
from app.security import PLAN
from estimator.advise.plan import MOST_ASKED, MOST_PROPOSALS

router = APIRouter(prefix="/v1/plans", tags=["plans"], dependencies=[PLAN], responses=problems(400, 413, 415, 422))

Trainer = Annotated[
    Literal["sft", "loop"] | None,
    Query(description="What runs the steps; by default what the job suggests. It decides what a change costs."),
]
Limit = Annotated[int, Query(ge=1, le=MOST_ASKED, description="At most so many proposals.")]


@router.post("", openapi_extra=JOB_BODY, responses={200: {"model": PlanAnswer}})
async def plan(request: Request, job: JobBody, trainer: Trainer = None, limit: Limit = MOST_PROPOSALS) -> Response:
    """Find what to change in a job so that it fits, or to use the room that it leaves, best first."""
    found = await while_connected(request, plans_of(request).plan(job, trainer=trainer, limit=limit))
    return json_answer(found.to_json())
