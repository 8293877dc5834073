"""So many at once, so many more that wait, and nobody else: for work that takes a thread or a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar

from anyio import CapacityLimiter, fail_after, to_thread

from app.admission import Overloaded
from estimator.errors import CtxplanError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

    from app.metrics import Metrics

Given = ParamSpec("Given")
Answer = TypeVar("Answer")


class TurnsOf(Protocol):
    """Makes turns for one kind of work."""

    def __call__(self, what: str, *, at_once: int) -> Turns: ...


class Turns:
    """Turns of one kind of work.

    Args:
        what: which work, by `ctxplan_http_shed_total`'s label.
        at_once: how many turns there are. max_waiting: how many may wait for one.
        max_seconds: how long one may wait.
    """

    def __init__(
        self,
        what: str,
        *,
        at_once: int,
        max_waiting: int,
        metrics: Metrics,
        log: FilteringBoundLogger,
        max_seconds: float = inf,
    ) -> None:
        self._what = what
        self._at_once = asyncio.Semaphore(at_once)
        self._max_waiting = max_waiting
        self._max_seconds = max_seconds
        self._waiting = 0
        self._threads = CapacityLimiter(at_once)
        self._metrics = metrics
        self._log = log

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Wait for a turn, and have it until the end of the block. Raises Overloaded where too many wait already, and
        where it was waited for too long."""
        if self._at_once.locked() and self._waiting >= self._max_waiting:
            raise self._overloaded()
        self._waiting += 1
        try:
            with fail_after(self._max_seconds):
                await self._at_once.acquire()
        except TimeoutError:
            raise self._overloaded() from None
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._at_once.release()

    def _overloaded(self) -> Overloaded:
        self._metrics.shed(self._what)
        return Overloaded()

    @property
    def are_all_taken(self) -> bool:
        """Whether the next one has to wait."""
        return self._at_once.locked()

    async def in_thread(self, work: Callable[Given, Answer], *given: Given.args, **named: Given.kwargs) -> Answer:
        """Do it in a thread, when it is its turn. Raises Overloaded, and what the work raises."""
        async with self.taken():
            # Threads of their own: what waits for a lookup keeps none of the others from theirs.
            return await self.to_the_end(to_thread.run_sync(partial(work, *given, **named), limiter=self._threads))

    async def to_the_end(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        """What the work answers. A thread cannot be ended: who gives up waits for it all the same, so that the turn is
        not given to another one meanwhile; what it fails with is logged, for nobody hears it."""
        working = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(working)
        except asyncio.CancelledError:
            await asyncio.wait({working})
            error = None if working.cancelled() else working.exception()
            if error is not None and not isinstance(error, CtxplanError):
                self._log.error("work that nobody waits for any more failed", what=self._what, exc_info=error)
            raise
