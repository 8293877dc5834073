"""The models that are known without asking the Hub."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from app.answers import json_answer
from app.catalogue import models
from app.openapi import problems
from app.schemas import Models
from app.security import PLAN

router = APIRouter(prefix="/v1/models", tags=["catalogue"], dependencies=[PLAN], responses=problems())


@router.get("", responses={200: {"model": Models}})
async def list_models() -> Response:
    """List the model catalogue. Other models are looked up on the Hub when a job names them."""
    return json_answer({"items": models(), "next": None})
