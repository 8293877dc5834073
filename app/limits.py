"""Refuses a body that is larger than it may be, by what it declares and by what really arrives."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.handlers import BodyTooLarge
from app.problems import problem


class BodyLimit:
    """ASGI middleware. A body sent in chunks declares no length, so its bytes are counted as they are
    received."""

    def __init__(self, app: ASGIApp, *, limit_bytes: int) -> None:
        self._app = app
        self._limit_bytes = limit_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if _declared_bytes(scope) > self._limit_bytes:
            error = BodyTooLarge(self._limit_bytes)
            await problem(scope, "body-too-large", error.detail)(scope, receive, send)
            return
        received_bytes = 0

        async def counted() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > self._limit_bytes:
                raise BodyTooLarge(self._limit_bytes)
            return message

        await self._app(scope, counted, send)


def _declared_bytes(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length":
            # A length that is no number, or has more digits than any body, is left to the count of what
            # arrives.
            return int(value) if value.isdigit() and len(value) < 20 else 0
    return 0
