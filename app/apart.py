"""Work of tens of milliseconds, in processes of its own.

In a thread it would run between the event loop's turns, and every estimate would wait behind it: Python runs one thread
at a time. Here it has another core, and steps back where there is none.
"""

from __future__ import annotations

import pickle
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from anyio import CancelScope, CapacityLimiter, fail_after, to_thread

from app.admission import Overloaded
from app.apart_process import HEAD
from app.children import command_of, environment_of_children
from app.metrics import Metrics
from ctxplan.planning import Planner
from estimator.calibration.document import Calibration
from estimator.errors import CtxplanError

Given = ParamSpec("Given")
Answer = TypeVar("Answer")

LONGEST_SECONDS = 60.0
"""What no plan takes: one that does is ended, with its process."""
STOP_SECONDS = 5.0


class WorkFailed(RuntimeError):
    """The work, or its process, ended as it never should. Says how, with the traceback where there is one."""


class Apart:
    """Does work on a planner in processes, or in one thread where there are to be none.

    Args:
        planner: whose calibration the work is done with.
        processes: how many. max_waiting: what more may wait for one of them.
    """

    def __init__(self, planner: Planner, *, processes: int, max_waiting: int, metrics: Metrics) -> None:
        self._planner = planner
        self._max_waiting = max_waiting
        self._metrics = metrics
        self._children = [Child() for _ in range(processes)]
        self._idle = list(self._children)
        self._turns = CapacityLimiter(max(1, processes))

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have the processes from now on, and end them at the end of the block. One that is gone meanwhile is
        replaced where it is needed."""
        try:
            for child in self._children:
                with suppress(OSError):  # who needs it will be told
                    child.start()
            yield
        finally:
            with CancelScope(shield=True):
                for child in self._children:
                    await to_thread.run_sync(child.end)

    async def do(
        self, work: Callable[Concatenate[Planner, Given], Answer], *given: Given.args, **named: Given.kwargs
    ) -> Answer:
        """The work's answer, after what came before.

        Args:
            work: a function of a module; what it is given, answers and raises can be pickled.

        Raises:
            Overloaded: too many wait already. CtxplanError: the work's own. WorkFailed.
        """
        if self._turns.available_tokens < 1 and self._turns.statistics().tasks_waiting >= self._max_waiting:
            self._metrics.shed("plans")
            raise Overloaded
        if not self._children:
            return await to_thread.run_sync(partial(work, self._planner, *given, **named), limiter=self._turns)
        async with self._turns:
            child = self._idle.pop()
            try:
                order = partial(child.do, self._planner.calibration, work, given, named)
                return cast("Answer", await _within_time(child, order))
            finally:
                self._idle.append(child)


async def _within_time(child: Child, order: Callable[[], Any]) -> Any:
    try:
        with fail_after(LONGEST_SECONDS):
            return await to_thread.run_sync(order, abandon_on_cancel=True)
    except TimeoutError:
        raise WorkFailed(f"it took longer than {LONGEST_SECONDS:g} s") from None
    finally:
        # Without its answer, it would give it to whoever comes next.
        child.end_if_busy()


@dataclass(slots=True)
class Running:
    """A process, what it was told last to calculate with, and whether it owes an answer."""

    popen: subprocess.Popen[bytes]
    knows: Calibration | None = None
    is_busy: bool = False


class Child:
    """One process and the pipes to it: used by one thread at a time."""

    def __init__(self) -> None:
        self._running: Running | None = None

    def start(self) -> Running:
        """Have the process, a new one where there is none any more. Raises OSError."""
        if self._running is not None and self._running.popen.poll() is None:
            return self._running
        self.end()
        popen = subprocess.Popen(
            command_of("app.apart_process"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment_of_children(),
        )
        self._running = Running(popen)
        return self._running

    def do(
        self, calibration: Calibration, work: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        """Have the process do it, and wait. Raises what the work raises, and WorkFailed."""
        try:
            running = self.start()
            running.is_busy = True
            news = calibration if calibration is not running.knows else None
            order = pickle.dumps((news, work, given, named), protocol=pickle.HIGHEST_PROTOCOL)
            done, answer = _exchanged(running.popen, order)
        except (OSError, EOFError) as error:
            raise WorkFailed(f"its process is gone: {error}") from None
        running.is_busy = False
        # After a fault of its own the process may not have read the calibration: it is told again.
        running.knows = calibration if done or isinstance(answer, CtxplanError) else None
        if done:
            return answer
        raise answer

    def end_if_busy(self) -> None:
        """Kill the process where it has not answered."""
        if self._running is not None and self._running.is_busy:
            self._running.popen.kill()
            self.end()

    def end(self) -> None:
        """End the process: it leaves when it is asked nothing more."""
        running, self._running = self._running, None
        if running is None:
            return
        popen = running.popen
        assert popen.stdin is not None and popen.stdout is not None  # noqa: S101, PT018 - both are pipes
        with suppress(OSError):
            popen.stdin.close()
        try:
            popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()
        popen.stdout.close()


def _exchanged(popen: subprocess.Popen[bytes], order: bytes) -> tuple[bool, Any]:
    assert popen.stdin is not None and popen.stdout is not None  # noqa: S101, PT018 - both are pipes
    popen.stdin.write(HEAD.pack(len(order)))
    popen.stdin.write(order)
    popen.stdin.flush()
    (length,) = HEAD.unpack(_all(popen.stdout.read(HEAD.size), HEAD.size))
    done, what = pickle.loads(_all(popen.stdout.read(length), length))  # noqa: S301 - of our own process
    return done, what if done else _raised(*what)


def _all(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise EOFError("no answer")
    return data


def _raised(kind: type[Exception] | None, arguments: tuple[Any, ...], state: dict[str, Any]) -> Exception:
    """The exception again, without a call of its constructor, which may ask for more than was kept."""
    if kind is None:
        return WorkFailed(*arguments)
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(state)
    return error
