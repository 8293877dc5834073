"""Where the service asks for API keys, a browser shows one once, and has a session from then on."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.keys.sessions import LIFE
from app.page.forms import fields_of
from app.pages import HEADERS, page
from app.routers.page_route import PageRoute, sign_in_page
from app.security import COOKIE, OPEN, Gate, refuse_other_sites
from estimator.errors import CtxplanError

router = APIRouter(route_class=PageRoute, tags=["pages"], dependencies=[OPEN], include_in_schema=False)

WRONG = "This key opens nothing: it is mistyped, revoked or expired, or of another service."
OFTEN = "Too many keys that open nothing came from here. Try again in {} seconds."
SEE_OTHER = 303


@router.get("/sign-in")
async def form(request: Request) -> Response:
    """The form, for whoever comes by themselves."""
    gate: Gate = request.state.gate
    if not gate.required:
        return page(request, "signed_out.html", required=False)
    return sign_in_page(request, to=local(request.query_params.get("next", "/")), fault=None, status=200)


@router.post("/sign-in")
async def sign_in(request: Request) -> Response:
    """Begin a session with a key, and go where the person was going. The key is in the body alone, and in no log."""
    refuse_other_sites(request)
    gate: Gate = request.state.gate
    fields = await fields_of(request)
    to = local(fields.get("next", "/"))
    if not gate.required:
        return RedirectResponse(to, SEE_OTHER, headers=HEADERS)
    address = request.client.host if request.client else ""
    if wait := gate.attempts.wait_seconds(address):
        told = {"retry-after": str(wait)}
        return sign_in_page(request, to=to, fault=OFTEN.format(wait), status=429, headers=told)
    cookie = await gate.sign_in(fields.get("key", "").strip())
    if cookie is None:
        await asyncio.sleep(gate.attempts.failed(address))
        return sign_in_page(request, to=to, fault=WRONG, status=401)
    response = RedirectResponse(to, SEE_OTHER, headers=HEADERS)
    _set(response, request, cookie, int(LIFE.total_seconds()))
    return response


@router.post("/sign-out")
async def sign_out(request: Request) -> Response:
    """End the session."""
    refuse_other_sites(request)
    gate: Gate = request.state.gate
    if gate.required and (cookie := request.cookies.get(COOKIE)):
        with suppress(CtxplanError):  # where the queue is away the browser forgets its session all the same
            (await gate.sessions()).end(cookie)
    response = page(request, "signed_out.html", required=gate.required)
    _set(response, request, "", 0)
    return response


def local(address: str) -> str:
    """The address where it is one of this service, else the first page: a link cannot send a person elsewhere."""
    is_local = address.startswith("/") and not address.startswith(("//", "/\\")) and len(address) <= 8000
    return address if is_local and address.isascii() and address.isprintable() and "\\" not in address else "/"


def _set(response: Response, request: Request, cookie: str, seconds: int) -> None:
    response.set_cookie(
        COOKIE,
        cookie,
        max_age=seconds,
        path="/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
