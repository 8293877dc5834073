"""A runnable script of a job."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.answers import json_answer
from app.dependencies import JobBody, JobRoute, plans_of
from app.openapi import problems
from app.schemas import JOB_BODY, ScriptAnswer
from app.security import PLAN

router = APIRouter(
    route_class=JobRoute,
    prefix="/v1/scripts",
    tags=["plans"],
    dependencies=[PLAN],
    responses=problems(400, 413, 415, 422),
)

PYTHON = "text/x-python"
_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"model": ScriptAnswer, "content": {PYTHON: {"schema": {"type": "string"}}}}
}


@router.post("", openapi_extra=JOB_BODY, responses=_ANSWER)
async def script(request: Request, job: JobBody) -> Response:
    """Write a complete training (or generation) script; `Accept: text/x-python` gives it bare."""
    written = await plans_of(request).script(job)
    if PYTHON in request.headers.get("accept", ""):
        disposition = f'attachment; filename="{written.filename}"'
        return Response(written.text, media_type=PYTHON, headers={"content-disposition": disposition, "vary": "accept"})
    return json_answer({"filename": written.filename, "script": written.text})
