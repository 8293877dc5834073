"""Who is let in, and when nobody is: a limit for each caller, and shedding while the service is behind.

A plan takes less than a millisecond, so that what waits does so in the event loop: a request that is reached late was
sent to a service that has more to do than it can. It is refused, which costs a hundredth of an answer, and the requests
that are answered stay quick.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from hashlib import sha256
from math import ceil
from time import monotonic

from starlette.responses import HTMLResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.keys.attempts import network_of
from app.metrics import Metrics
from app.problems import KINDS, problem
from estimator.errors import CtxplanError

TICK_SECONDS = 0.01
BURST_SECONDS = 2.0
"""What a caller may use at once of what it did not use before."""
MAX_CALLERS = 8192
VERY_LATE = 4
KEYS_PER_ADDRESS = 10
"""All keys of an address that have opened something here may together use so many times the rate of one."""
ALWAYS = ("/healthz", "/readyz", "/metrics")
"""What watches the service is answered however much there is to do, at a rate of its own."""


class Overloaded(CtxplanError):
    """There is more to do than the service can."""

    code = "overloaded"

    def __init__(self) -> None:
        super().__init__("the service has more to do than it can: try again later")


class RateLimit:
    """Requests a second of each caller (the generic cell rate algorithm: one number for each).

    Args:
        per_second: how many; 0 is any number.
    """

    def __init__(self, per_second: float, *, time: Callable[[], float] = monotonic) -> None:
        self._apart = 1 / per_second if per_second else 0.0
        self._time = time
        self._due: OrderedDict[str, float] = OrderedDict()

    def wait_seconds(self, caller: str) -> float:
        """Take one request, or say after how many seconds there is room for it."""
        if not self._apart:
            return 0.0
        now = self._time()
        due = max(self._due.get(caller, now), now)
        if due - now > BURST_SECONDS:
            return due - now - BURST_SECONDS
        self._due[caller] = due + self._apart
        self._due.move_to_end(caller)
        if len(self._due) > MAX_CALLERS:
            self._due.popitem(last=False)
        return 0.0


class Lag:
    """How far the event loop is behind its time, by a tick: how late it comes, and how long it is due.

    Args:
        most_seconds: how late it may be. A single pause, of a collection or of the machine, is none: it has to be late
            twice on end, or very late.
    """

    def __init__(self, most_seconds: float, *, time: Callable[[], float] = monotonic) -> None:
        self._most = most_seconds
        self._time = time
        self._due = float("inf")
        self._was_late = False

    @property
    def is_too_much(self) -> bool:
        """Whether what is reached now has waited for too long."""
        overdue = self._time() - self._due
        return overdue > self._most * (1 if self._was_late else VERY_LATE)

    def expect(self) -> None:
        """The next tick is due in `TICK_SECONDS`."""
        self._due = self._time() + TICK_SECONDS

    def came(self) -> None:
        """The tick is here."""
        self._was_late = self._time() - self._due > self._most

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Tick until the end of the block."""
        ticking = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticking.cancel()
            with suppress(asyncio.CancelledError):
                await ticking

    async def _tick(self) -> None:
        while True:
            self.expect()
            await asyncio.sleep(TICK_SECONDS)
            self.came()


class Admission:
    """ASGI middleware: 429 for a caller that asks too often, 503 for whoever comes while the service is behind.

    Args:
        per_second: requests of each caller; 0 is any number. lag: of the event loop.
    """

    def __init__(self, app: ASGIApp, *, per_second: float, lag: Lag, metrics: Metrics) -> None:
        self._app = app
        self._keys, self._addresses = RateLimit(per_second), RateLimit(per_second * KEYS_PER_ADDRESS)
        self._anybody = RateLimit(per_second)
        self._proven: OrderedDict[str, None] = OrderedDict()
        self._lag = lag
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if self._lag.is_too_much and scope["path"] not in ALWAYS:
            self._metrics.shed("lag")
            await _refused(scope, Overloaded.code, str(Overloaded()), 1)(scope, receive, send)
            return
        key = _key_of(scope)
        wait = self._wait_seconds(scope, key)
        if wait:
            self._metrics.shed("rate")
            detail = f"too many requests from one caller: try again in {wait:.1f} seconds"
            await _refused(scope, "too-many-requests", detail, wait)(scope, receive, send)
            return
        await self._app(scope, receive, send)
        if key and "principal" in scope.get("state", {}):
            self._note(key)

    def _wait_seconds(self, scope: Scope, key: str | None) -> float:
        """By API key within its address, for a key that has opened something here; by address alone for all else.

        A key that has not may be made up, and each of them anew: it is worth no more than none.
        """
        network = network_of(scope["client"][0] if scope["client"] else "")
        if scope["path"] in ALWAYS:
            return self._anybody.wait_seconds(f"watch {network}")
        if key is not None and key in self._proven:
            return self._addresses.wait_seconds(network) or self._keys.wait_seconds(key)
        return self._anybody.wait_seconds(network)

    def _note(self, key: str) -> None:
        """The key has let its caller in."""
        self._proven[key] = None
        self._proven.move_to_end(key)
        if len(self._proven) > MAX_CALLERS:
            self._proven.popitem(last=False)


def _key_of(scope: Scope) -> str | None:
    """A digest of what a request shows as its key, of which nothing else is kept; the same however it is spaced."""
    shown = next((value for name, value in scope["headers"] if name == b"authorization"), None)
    if shown is None:
        return None
    key = shown.decode("latin-1").partition(" ")[2].strip()  # as `app.security.Gate` reads it
    return sha256(key.encode()).hexdigest()


def _refused(scope: Scope, code: str, detail: str, wait: float) -> Response:
    """The problem document; for a browser that opens a page, a page that comes again by itself."""
    told = retry_after(wait)
    accept = next((value for name, value in scope["headers"] if name == b"accept"), b"")
    if scope["method"] == "GET" and b"text/html" in accept:
        page = f'<!doctype html><html lang="en"><title>ctxplan</title><p>{detail[0].upper()}{detail[1:]}.</p></html>'
        again = {"refresh": told["retry-after"], "content-security-policy": "default-src 'none'"}
        return HTMLResponse(page, status_code=KINDS[code].status, headers={**told, **again})
    return problem(scope, code, detail, headers=told)


def retry_after(seconds: float) -> dict[str, str]:
    """The header that says when to come again."""
    return {"retry-after": str(max(1, ceil(seconds)))}
