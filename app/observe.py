"""Around every request: an id, a log line, a measurement, and an answer even where the code failed."""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from time import perf_counter
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.metrics import Metrics
from app.problems import MEDIA_TYPE, problem

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

CLIENT_CLOSED_REQUEST = 499
SAFE = (
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
"""What every answer tells a browser, unless it says otherwise itself: it is no page, and no other site's."""
SLOW_SECONDS = 1.0
STOPPED = "the service was stopped before it had an answer: try again"
UNMATCHED = "unmatched"
_PROBLEM = MEDIA_TYPE.encode()
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


class Observe:
    """ASGI middleware, the outermost of ours: what it does not catch, no client sees."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics, log: FilteringBoundLogger) -> None:
        self._app = app
        self._metrics = metrics
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        extra = (b"x-request-id", request_id.encode())
        status, is_problem, code = 0, False, None
        start = perf_counter()

        async def tagged(message: Message) -> None:
            nonlocal status, is_problem, code
            if message["type"] == "http.response.start":
                status = message["status"]
                said = dict(message["headers"])
                is_problem = said.get(b"content-type") == _PROBLEM
                safe = [(name, value) for name, value in SAFE if name not in said]
                message["headers"] = [*message["headers"], *safe, extra]
            elif is_problem and code is None:
                code = _code(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, tagged)
        except ClientDisconnect:
            status = CLIENT_CLOSED_REQUEST
        except asyncio.CancelledError:
            # By the server alone, which stops and has waited long enough: it has no use for the cancellation.
            if not status:
                stopped = problem(scope, "not-ready", STOPPED, headers={"retry-after": "1", "connection": "close"})
                await stopped(scope, receive, tagged)
        except Exception:
            self._log.exception("request failed", request_id=request_id, route=_route_template(scope))
            if status:
                raise
            failed = problem(
                scope, "internal-error", "the service failed; its log has the details under the request_id"
            )
            await failed(scope, receive, tagged)
        finally:
            self._record(scope, status, code, perf_counter() - start, request_id)

    def _record(self, scope: Scope, status: int, code: str | None, seconds: float, request_id: str) -> None:
        method, route = scope["method"], _route_template(scope)
        self._metrics.record(method, route, status, seconds)
        # A plan takes less time than its log line: what went well is counted, and logged only where that is
        # asked for.
        write = self._log.info if status >= 400 or seconds > SLOW_SECONDS else self._log.debug
        write(
            "request",
            method=method,
            route=route,
            status=status,
            **({"code": code} if code else {}),
            ms=round(seconds * 1000, 3),
            request_id=request_id,
        )


def _request_id(scope: Scope) -> str:
    """The caller's X-Request-ID where it is a short plain word, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            given: str = value.decode()
            return given
    return secrets.token_hex(8)


def _route_template(scope: Scope) -> str:
    """The template of the route that was asked for: the one that answered, or the one that would have, where the
    request was refused before any was looked for."""
    route = scope.get("route") if "router" in scope else _route_of(scope)
    path = getattr(route, "path", None)
    return path if isinstance(path, str) else UNMATCHED


def _route_of(scope: Scope) -> object:
    """As starlette's router finds it: the first that takes the path and the method, else the first with the path."""
    with_path = None
    for route in scope["app"].routes:
        match, _ = route.matches(scope)
        if match is Match.FULL:
            return route
        if match is Match.PARTIAL and with_path is None:
            with_path = route
    return with_path


def _code(body: bytes) -> str | None:
    """The code of a problem document, as it was written."""
    try:
        code = json.loads(body)["code"]
    except (ValueError, KeyError, TypeError):
        return None
    return code if isinstance(code, str) else None
