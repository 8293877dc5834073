"""Work of tens of milliseconds, in processes of its own.

In a thread it would run between the event loop's turns, and every estimate would wait behind it: Python runs one thread
at a time. Here it has another core, and steps back where there is none.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar, cast

from anyio import CancelScope, CapacityLimiter, fail_after, to_thread

from app.apart_child import Child, NoProcess, ProcessGone, WorkFailed
from app.metrics import Metrics
from app.turns import Turns
from app.work import nothing
from ctxplan.planning import Planner

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

Given = ParamSpec("Given")
Answer = TypeVar("Answer")

LONGEST_WAIT_SECONDS = 5.0
"""Who has waited for that is told to come again: most programs and people would wait no longer."""
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
        at_once = max(1, processes)
        self._planner = planner
        self._metrics = metrics
        self._turns = Turns(
            "plans",
            at_once=at_once,
            max_waiting=max_waiting,
            max_seconds=LONGEST_WAIT_SECONDS,
            metrics=metrics,
            log=log,
        )
        self._new = partial(Child, lambda line: log.warning("a planning process said", line=line))
        self._idle = [self._new() for _ in range(processes)]
        self._busy: set[Child] = set()
        self._processes = processes
        self._threads = CapacityLimiter(at_once)

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
                for child in self._idle:
                    await to_thread.run_sync(child.end)

    async def is_able(self) -> bool:
        """Whether work is done here: some is, or would be."""
        if not self._processes or self._turns.are_all_taken:
            return True
        try:
            await self.do(nothing)
        except (NoProcess, WorkFailed):
            return False
        return True

    async def do(
        self, work: Callable[Concatenate[Planner, Given], Answer], *given: Given.args, **named: Given.kwargs
    ) -> Answer:
        """The work's answer, after what came before. Who gives up leaves the queue; what has begun is done to its end.

        Args:
            work: a function of a module; what it is given, answers and raises can be pickled.

        Raises:
            Overloaded: too many wait already. NoProcess: none can be started. CtxplanError: the work's own. WorkFailed.
        """
        if not self._processes:
            return await self._turns.in_thread(work, self._planner, *given, **named)
        async with self._turns.taken():
            return cast("Answer", await self._turns.to_the_end(self._by_a_process(work, given, named)))

    async def _by_a_process(self, work: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        child = self._idle.pop()
        self._busy.add(child)
        try:
            with fail_after(LONGEST_SECONDS):
                order = partial(child.do, self._planner.calibration, work, given, named)
                return await to_thread.run_sync(order, abandon_on_cancel=True, limiter=self._threads)
        except ProcessGone:
            self._metrics.process_lost()
            raise
        except TimeoutError:
            # A thread waits for its answer still: it is never asked again.
            await to_thread.run_sync(child.kill)
            self._metrics.process_lost()
            raise WorkFailed(f"it took longer than {LONGEST_SECONDS:g} s") from None
        finally:
            self._busy.discard(child)
            self._idle.append(self._new() if child.is_over else child)
