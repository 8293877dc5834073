"""Whether a launcher's config fits the card that it is to run on."""

from __future__ import annotations

from anyio import to_thread
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.answers import json_answer
from app.dependencies import json_of_body, plans_of, while_connected
from app.openapi import problems
from app.preflight.request import read_request
from app.preflight.schemas import PREFLIGHT_BODY, PreflightAnswer
from app.security import PLAN

router = APIRouter(prefix="/v1/preflight", tags=["plans"], dependencies=[PLAN], responses=problems(400, 413, 415, 422))


@router.post("", openapi_extra=PREFLIGHT_BODY, responses={200: {"model": PreflightAnswer}})
async def preflight(request: Request) -> Response:
    """Read a config of Unsloth, TRL, Axolotl or LLaMA-Factory, or a job; say whether it fits and what stands out."""
    data = await json_of_body(request)
    # A config is text of any shape, up to the body's limit: it is parsed where nobody waits for it.
    question = await to_thread.run_sync(read_request, data)
    found = await while_connected(request, plans_of(request).preflight(question))
    return json_answer(found.to_json())
