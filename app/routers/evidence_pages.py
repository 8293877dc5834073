"""Pages of what the answers rest on: tiers with their runs, calibrations with their errors. Each has its JSON."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.answers import json_answer
from app.page.evidence import calibration_to_json, error_plot, measures_of
from app.page.query import query_of_job
from app.pages import page
from app.routers.calibrations import calibrations_of
from app.routers.page_route import PageRoute
from app.security import PLAN
from app.tiers import listed, shown
from ctxplan.calibration_summary import summary
from ctxplan.tiers import UnknownTier
from estimator import parse_job

router = APIRouter(route_class=PageRoute, tags=["pages"], dependencies=[PLAN], include_in_schema=False)

JSON = ".json"
MOST_CALIBRATIONS = 100


@router.get("/tiers")
async def tiers(request: Request) -> Response:
    """Claims about long contexts, and whether a run has shown them."""
    return page(request, "tiers.html", tiers=[(tier, query_of_job(parse_job(tier["job"]))) for tier in listed()])


@router.get("/tiers.json")
async def tiers_json() -> Response:
    """The same as JSON, as `/v1/tiers` has it."""
    return json_answer({"items": listed(), "next": None})


@router.get("/tiers/{name}")
async def tier(request: Request, name: str) -> Response:
    """One claim with its run, step by step; as JSON where the name ends in .json."""
    try:
        found = shown(name.removesuffix(JSON))
    except UnknownTier as error:
        raise HTTPException(404, str(error)) from None
    if name.endswith(JSON):
        return json_answer(found)
    evidence: dict[str, Any] | None = found["evidence"]
    bars = measures_of(evidence, evidence["measurements"][0]["total_bytes"]) if evidence else ()
    job = evidence["job"] if evidence else found["job"]
    query = query_of_job(parse_job(job))
    return page(request, "tier.html", tier=found, evidence=evidence, bars=bars, query=query)


@router.get("/calibrations")
async def calibrations(request: Request) -> Response:
    """The calibrations that are kept here, the active one with its errors."""
    store = calibrations_of(request)
    items = (await store.page(limit=MOST_CALIBRATIONS, after=None))["items"]
    active = await store.active()
    return page(request, "calibrations.html", items=items, active=active, plot=error_plot(store.calibration))


@router.get("/calibrations.json")
async def calibrations_json(request: Request) -> Response:
    """The same as JSON."""
    store = calibrations_of(request)
    listing = await store.page(limit=MOST_CALIBRATIONS, after=None)
    return json_answer({**listing, "active": {**await store.active(), **calibration_to_json(store.calibration)}})


@router.get("/calibrations/{id}")
async def calibration(request: Request, id: str) -> Response:
    """One calibration with the error of every point behind it; as JSON where the id ends in .json."""
    found = await calibrations_of(request).document(id.removesuffix(JSON))
    if id.endswith(JSON):
        return json_answer(calibration_to_json(found))
    return page(request, "calibration.html", found=summary(found), plot=error_plot(found))
