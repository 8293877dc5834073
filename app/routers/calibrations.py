"""Calibrations: what was fitted to measurements, and which of them every answer is made with."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.answers import json_bytes
from app.calibration_schemas import (
    ACTIVATION_BODY,
    FIT_BODY,
    ActivatedAnswer,
    ActiveAnswer,
    CalibrationAnswer,
    ComparisonAnswer,
    FittedAnswer,
    Listing,
)
from app.calibrations import Calibrations
from app.dependencies import json_of_body, while_connected
from app.openapi import problems
from app.parameters import KNOWN
from app.security import PLAN, Administering, Measuring, Principal


class _IdConvertor(Convertor[str]):
    """What stands for an id in a path: no word that is a route itself, which then refuses other methods."""

    regex = "(?!(?:active|rollback)(?:/|$))[^/]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("calibration", _IdConvertor())

router = APIRouter(prefix="/v1/calibrations", tags=["calibrations"], responses=problems())

Id = Annotated[str, Path(max_length=80, description="An id, or the digits that it begins with, or `shipped`.")]
With = Annotated[str, Query(alias="with", max_length=80, description="The other calibration.")]
Limit = Annotated[int, Query(ge=1, le=100, description="At most so many.")]
After = Annotated[str | None, Query(max_length=80, description="Go on after this id, the last page's `next`.")]

CHANGING = problems(400, 403, 413, 415, 422, 503)


def calibrations_of(request: Request) -> Calibrations:
    """The application's calibrations."""
    calibrations: Calibrations = request.state.calibrations
    return calibrations


def changed_by(request: Request, principal: Principal) -> Calibrations:
    """The same, for a request that changes them. Raises HTTPException where the settings do not allow that to whoever
    reaches the service without a key."""
    calibrations = calibrations_of(request)
    if principal.is_local and not calibrations.allowed:
        raise HTTPException(403, "this server's calibrations are not changed over HTTP (CTXPLAN_ALLOW_CALIBRATION)")
    return calibrations


@router.get("", dependencies=[PLAN, KNOWN], responses={200: {"model": Listing}, **problems(404, 422, 503)})
async def list_calibrations(request: Request, limit: Limit = 100, after: After = None) -> Response:
    """List the calibrations, the newest first and the shipped one last."""
    return _json(await calibrations_of(request).page(limit=limit, after=after))


@router.post(
    "",
    openapi_extra=FIT_BODY,
    status_code=201,
    responses={201: {"model": FittedAnswer}, 200: {"model": FittedAnswer}, **CHANGING},
)
async def fit(request: Request, principal: Measuring) -> Response:
    """Fit a calibration to measurements and keep it: 201 where it is new, 200 where it was here already."""
    calibrations, body = changed_by(request, principal), await json_of_body(request)
    made = await while_connected(request, calibrations.fit(body))
    return _json(made.document, status=201 if made.new else 200)


@router.get("/active", dependencies=[PLAN], responses={200: {"model": ActiveAnswer}, **problems(503)})
async def active(request: Request) -> Response:
    """Show the calibration that every answer is made with, and what was measured beyond its bound."""
    return _json(await calibrations_of(request).active())


@router.post(
    "/rollback",
    openapi_extra=ACTIVATION_BODY,
    responses={200: {"model": ActivatedAnswer}, **CHANGING, **problems(404, 409)},
)
async def rollback(request: Request, principal: Administering) -> Response:
    """Answer with the calibration that was active before."""
    return _json(await changed_by(request, principal).rollback(await json_of_body(request)))


@router.get(
    "/{id:calibration}", dependencies=[PLAN], responses={200: {"model": CalibrationAnswer}, **problems(404, 422, 503)}
)
async def show(request: Request, id: Id) -> Response:
    """Show a calibration: what it is from, its coefficients and its bounds."""
    return _json(await calibrations_of(request).summary(id))


@router.get(
    "/{id:calibration}/comparison",
    dependencies=[PLAN],
    responses={200: {"model": ComparisonAnswer}, **problems(404, 422, 503)},
)
async def compare(request: Request, id: Id, other: With) -> Response:
    """Compare a calibration with another: what differs, and how each answers the measurements that are kept of both."""
    return _json(await calibrations_of(request).compare(id, other))


@router.post(
    "/{id:calibration}/activation",
    openapi_extra=ACTIVATION_BODY,
    responses={200: {"model": ActivatedAnswer}, **CHANGING, **problems(404)},
)
async def activate(request: Request, id: Id, principal: Administering) -> Response:
    """Answer with a calibration from now on."""
    return _json(await changed_by(request, principal).activate(id, await json_of_body(request)))


def _json(content: dict[str, Any], *, status: int = 200) -> Response:
    return Response(json_bytes(content), status_code=status, media_type="application/json")
