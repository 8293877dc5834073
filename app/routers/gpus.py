"""The GPUs that are known by name."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from app.answers import json_answer
from app.catalogue import gpus
from app.openapi import problems
from app.schemas import Gpus
from app.security import PLAN

router = APIRouter(prefix="/v1/gpus", tags=["catalogue"], dependencies=[PLAN], responses=problems())


@router.get("", responses={200: {"model": Gpus}})
async def list_gpus() -> Response:
    """List the GPU catalogue."""
    return json_answer({"items": gpus(), "next": None})
