"""The queue's numbers, kept for a while: however often they are asked for, the database is hardly busy with them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from app.backend import Backend, QueueUnavailable
from app.queue.counts import Counts, count

KEPT_SECONDS = 5.0
SHARE = 0.05
"""Of the time, at the most, that is spent with counting."""
PATIENCE_SECONDS = 1.0
"""How long whoever asks waits for a count that is on its way."""
STALE_SECONDS = 120.0
"""Older numbers are not shown: the database does not answer any more."""


class Counting:
    """Counts one at a time, and not again too soon.

    Args:
        time: seconds of a clock that only goes forward.
    """

    def __init__(self, backend: Backend, *, time: Callable[[], float] = monotonic) -> None:
        self._backend = backend
        self._time = time
        self._counts: Counts | None = None
        self._counted_at = self._due_at = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._told: type[Exception] | None = None

    async def latest(self) -> Counts | None:
        """The newest numbers; None where it cannot be counted, whatever is the cause."""
        if self._task is None and self._time() >= self._due_at:
            self._task = asyncio.create_task(self._count())
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=PATIENCE_SECONDS)
        return self._counts if self._time() - self._counted_at <= STALE_SECONDS else None

    async def stop(self) -> None:
        """Break off what is on its way."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def _missing(self) -> None:
        self._counts, self._due_at = None, self._time() + KEPT_SECONDS

    async def _count(self) -> None:
        try:
            database = await self._backend.database()
            begun = self._time()
            async with database.read(snapshot=True) as connection:
                self._counts = await count(connection, self._backend.clock())
            self._counted_at = self._time()
            self._due_at = self._counted_at + max(KEPT_SECONDS, (self._counted_at - begun) / SHARE)
            self._told = None
        except QueueUnavailable:  # said once, where it was opened
            self._missing()
        except Exception as error:  # whatever it is, the scrape has the rest to say
            self._missing()
            if type(error) is not self._told:
                self._backend.log.warning("the queue cannot be counted", exc_info=error)
            self._told = type(error)
        finally:
            self._task = None
