"""Routes of pages: what goes wrong is a page for a browser, and the problem document for a program."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from sqlalchemy.exc import InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from app.pages import page
from app.problems import KINDS, code_of_status
from estimator.errors import CtxplanError
from estimator.rules import shorten

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
OTHERS = frozenset({"cross-site", "same-site"})
GONE = (OperationalError, InterfaceError, PoolTimeout)


class PageRoute(APIRoute):
    """A route whose errors a person can read. Who has no key is asked for one, and comes back to where they were."""

    def get_route_handler(self) -> Handler:
        answer = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await answer(request)
            except (HTTPException, CtxplanError, RequestValidationError, *GONE) as error:
                if not wants_html(request):
                    raise
                return _error_page(request, error)

        return answered

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, found = super().matches(scope)
        return (Match.FULL if match is Match.PARTIAL and self._is_head(scope) else match), found

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """HEAD is answered as GET; the server leaves the body out."""
        if self._is_head(scope):
            await self.app(scope, receive, send)
        else:
            await super().handle(scope, receive, send)

    def _is_head(self, scope: Scope) -> bool:
        return scope["type"] == "http" and scope["method"] == "HEAD" and "GET" in (self.methods or ())


def answer_unknown_addresses(app: FastAPI) -> None:
    """Have ``app`` answer a browser with a page where no route has the address; to be called after
    `app.handlers.install_handlers`, which answers everybody else."""
    other = app.exception_handlers[HTTPException]

    def answered(request: Request, error: Exception) -> Any:
        is_unknown = isinstance(error, HTTPException) and error.status_code == 404 and "endpoint" not in request.scope
        if is_unknown and wants_html(request):
            path = shorten(quote(request.url.path, errors="replace"))
            return page(request, "unknown.html", status=404, path=path)
        return other(request, error)

    app.add_exception_handler(HTTPException, answered)


def wants_html(request: Request) -> bool:
    """Whether a browser asks, and not a program."""
    return "text/html" in request.headers.get("accept", "")


def wants_json(request: Request) -> bool:
    """Whether a program asks for the page's JSON at the page's own address."""
    return "application/json" in request.headers.get("accept", "") and not wants_html(request)


def sign_in_page(
    request: Request, *, to: str, fault: str | None, status: int, headers: dict[str, str] | None = None
) -> Response:
    """The form that asks for a key.

    Args:
        to: the address on this service to go to then. fault: what was wrong with the last try.
    """
    # A link on another site's page brings no session, by the cookie's own rule. Asked for again, from here, it does.
    again = request.method == "GET" and request.headers.get("sec-fetch-site") in OTHERS
    return page(request, "sign_in.html", status=status, headers=headers, to=to, fault=fault, again=again)


def _error_page(request: Request, error: Exception) -> Response:
    headers: dict[str, str] | None = None
    if isinstance(error, HTTPException):
        if error.status_code == 401:
            return _asked_for_key(request, error)
        code, status, detail = code_of_status(error.status_code), error.status_code, str(error.detail)
        headers = dict(error.headers) if error.headers else None
    elif isinstance(error, CtxplanError):
        code = error.code if error.code in KINDS else "invalid-job"
        status, detail = KINDS[code].status, str(error)
        headers = {"retry-after": "2", "refresh": "2"} if code == "overloaded" and request.method == "GET" else None
    elif isinstance(error, RequestValidationError):
        code, detail = "invalid-request", "; ".join(f"{fault['loc'][-1]}: {fault['msg']}" for fault in error.errors())
        status = KINDS[code].status
    else:
        code, status, detail = "queue-unavailable", 503, "the database does not answer; the log has the cause"
        line = str(error).splitlines()[0]
        request.state.log.warning("the database failed", request_id=request.state.request_id, detail=line)
    back, again = _ways(request)
    shown = {"kind": KINDS[code], "code": code, "detail": detail, "back": back, "again": again}
    return page(request, "problem.html", status=status, headers=headers, **shown)


def _asked_for_key(request: Request, error: HTTPException) -> Response:
    back, again = _ways(request)
    # What was to be done is not done again by itself.
    to = back or again
    had_session = "session" in str(error.detail)
    headers = dict(error.headers) if error.headers else None
    return sign_in_page(request, to=to, fault=error.detail if had_session else None, status=401, headers=headers)


def _ways(request: Request) -> tuple[str | None, str]:
    """Where a request that was to do something was offered, None for one that only looked; and its own address."""
    path, query = quote(request.url.path), request.url.query
    is_look = request.method in ("GET", "HEAD")
    return None if is_look else path.rpartition("/")[0] or "/", f"{path}?{query}" if query else path
