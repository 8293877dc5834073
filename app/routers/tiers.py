"""Tiers: claims about long contexts, with the evidence that was committed for them."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.answers import json_answer
from app.openapi import problems
from app.schemas import TierAnswer, Tiers
from app.security import PLAN
from app.tiers import listed, shown
from ctxplan.tiers import UnknownTier

router = APIRouter(prefix="/v1/tiers", tags=["catalogue"], dependencies=[PLAN], responses=problems())


@router.get("", responses={200: {"model": Tiers}})
async def list_tiers() -> Response:
    """List the tiers, each with what its evidence says."""
    return json_answer({"items": listed(), "next": None})


@router.get("/{name}", responses={200: {"model": TierAnswer}, **problems(404, 422)})
async def show_tier(name: str) -> Response:
    """Show a tier with its whole evidence: every measurement of the run."""
    try:
        return json_answer(shown(name))
    except UnknownTier as error:
        raise HTTPException(404, str(error)) from None
