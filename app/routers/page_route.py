"""Routes of pages: what goes wrong is a page for a browser, and the problem document for a program."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.pages import page
from app.problems import KINDS, code_of_status
from estimator.errors import CtxplanError

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class PageRoute(APIRoute):
    """A route whose errors a person can read."""

    def get_route_handler(self) -> Handler:
        answer = super().get_route_handler()

        async def answered(request: Request) -> Response:
            try:
                return await answer(request)
            except (HTTPException, CtxplanError) as error:
                if not wants_html(request):
                    raise
                return _error_page(error)

        return answered


def wants_html(request: Request) -> bool:
    """Whether a browser asks, and not a program."""
    return "text/html" in request.headers.get("accept", "")


def _error_page(error: HTTPException | CtxplanError) -> Response:
    if isinstance(error, HTTPException):
        code, status, headers = code_of_status(error.status_code), error.status_code, error.headers
        detail = str(error.detail)
    else:
        code = error.code if error.code in KINDS else "invalid-job"
        status, headers, detail = KINDS[code].status, None, str(error)
    return page("problem.html", status=status, headers=headers, kind=KINDS[code], code=code, detail=detail)
