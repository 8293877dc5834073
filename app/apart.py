"""Work of tens of milliseconds, in processes of its own.

In a thread it would run between the event loop's turns, and every estimate would wait behind it: Python runs one thread
at a time. Here it has another core, and steps back where there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from anyio import CancelScope, CapacityLimiter, fail_after, to_thread

from app.admission import Overloaded
from app.apart_child import Child, WorkFailed
from app.metrics import Metrics
from ctxplan.planning import Planner

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

Given = ParamSpec("Given")
Answer = TypeVar("Answer")

LONGEST_SECONDS = 60.0
"""What no plan takes: one that does is ended, with its process."""


class Apart:
    """Does work on a planner in processes, or in one thread where there are to be none.

    Args:
        planner: whose calibration the work is done with.
        processes: how many. max_waiting: what more may wait for one of them.
        log: takes what the processes say.
    """

    def __init__(
        self, planner: Planner, *, processes: int, max_waiting: int, metrics: Metrics, log: FilteringBoundLogger
    ) -> None:
        self._planner = planner
        self._max_waiting = max_waiting
        self._metrics = metrics
        self._new = partial(Child, lambda line: log.warning("a planning process said", line=line))
        self._idle = [self._new() for _ in range(processes)]
        self._busy: set[Child] = set()
        self._turns = CapacityLimiter(max(1, processes))
        self._processes = processes
        self._working: set[asyncio.Task[Any]] = set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have the processes from now on, and end them at the end of the block. One that is gone meanwhile is
        replaced where it is needed."""
        try:
            for child in self._idle:
                with suppress(OSError):  # who needs it will be told
                    child.start()
            yield
        finally:
            with CancelScope(shield=True):
                for child in list(self._busy):  # for nobody: who asked has been answered, or sent away
                    await to_thread.run_sync(child.kill)
                if self._working:
                    await asyncio.wait(self._working)
                for child in self._idle:
                    await to_thread.run_sync(child.end)

    async def do(
        self, work: Callable[Concatenate[Planner, Given], Answer], *given: Given.args, **named: Given.kwargs
    ) -> Answer:
        """The work's answer, after what came before. Who gives up leaves the queue; what has begun is done to its end.

        Args:
            work: a function of a module; what it is given, answers and raises can be pickled.

        Raises:
            Overloaded: too many wait already. CtxplanError: the work's own. WorkFailed.
        """
        if self._turns.available_tokens < 1 and self._turns.statistics().tasks_waiting >= self._max_waiting:
            self._metrics.shed("plans")
            raise Overloaded
        turn = object()
        await self._turns.acquire_on_behalf_of(turn)
        working = asyncio.create_task(self._done(turn, work, given, named))
        self._working.add(working)
        working.add_done_callback(self._ended)
        return cast("Answer", await asyncio.shield(working))

    async def _done(self, turn: object, work: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        try:
            if not self._processes:
                return await to_thread.run_sync(partial(work, self._planner, *given, **named))
            return await self._by_a_process(work, given, named)
        finally:
            self._turns.release_on_behalf_of(turn)

    async def _by_a_process(self, work: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        child = self._idle.pop()
        self._busy.add(child)
        try:
            with fail_after(LONGEST_SECONDS):
                order = partial(child.do, self._planner.calibration, work, given, named)
                return await to_thread.run_sync(order, abandon_on_cancel=True)
        except TimeoutError:
            # A thread waits for its answer still: it is never asked again.
            await to_thread.run_sync(child.kill)
            raise WorkFailed(f"it took longer than {LONGEST_SECONDS:g} s") from None
        finally:
            self._busy.discard(child)
            self._idle.append(self._new() if child.is_over else child)

    def _ended(self, working: asyncio.Task[Any]) -> None:
        self._working.discard(working)
        if not working.cancelled():
            working.exception()  # where nobody waits any more, nobody else asks for it
