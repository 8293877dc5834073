"""The database as requests meet it: opened beside the service, and not there where it cannot be opened.

Planning asks nothing of it, so that it never waits for it and never fails with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from anyio import to_thread
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from app.database import Database, migrate
from app.keys.secret import read_secret
from app.keys.store import KeyStore
from app.queue import JobStore, Limits
from app.settings import Settings
from estimator.errors import CtxplanError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

RETRY_SECONDS = 2.0
"""After a failure, how long the database is not tried again: a request is refused at once meanwhile."""
STOP_SECONDS = 5.0
ANSWER_SECONDS = 2.0
"""How long a database that is asked whether it is there may take to say so."""


class QueueUnavailable(CtxplanError):
    """The database cannot be opened. Why is in the log alone: it may name the database's host."""

    code = "queue-unavailable"

    def __init__(self) -> None:
        super().__init__("the queue's database does not answer; the log has the cause")


class Backend:
    """One database, with its schema brought to this release's, and what stands on it."""

    def __init__(
        self, settings: Settings, *, log: FilteringBoundLogger, clock: Callable[[], datetime] | None = None
    ) -> None:
        self.clock = clock or _utc_now
        self.limits = Limits(lease_seconds=settings.lease_seconds)
        self._settings = settings
        self.log = log
        self._database: Database | None = None
        self._keys: KeyStore | None = None
        self._opening: asyncio.Task[Database] | None = None
        self._asking: asyncio.Task[bool] | None = None
        self._failed_at = float("-inf")
        self._fault = ""

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """Begin to open it, and close it at the end of the block. Nothing is waited for."""
        self._begin()
        try:
            yield
        finally:
            await self._close()

    async def database(self) -> Database:
        """The open database. Raises QueueUnavailable."""
        if self._database is not None:
            return self._database
        if self._opening is None:
            if asyncio.get_running_loop().time() - self._failed_at < RETRY_SECONDS:
                raise QueueUnavailable
            self._begin()
        assert self._opening is not None  # noqa: S101 - narrows what was just begun
        # Shielded: a request that is broken off leaves the opening to the others.
        return await asyncio.shield(self._opening)

    async def can_check_keys(self) -> bool:
        """Whether the database, within `ANSWER_SECONDS`, and the secret are there. However many ask, it is asked once
        at a time."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        asking = self._asking
        await asyncio.wait({asking}, timeout=ANSWER_SECONDS)
        return asking.done() and not asking.cancelled() and asking.result()

    async def jobs(self) -> JobStore:
        """The queue. Raises QueueUnavailable."""
        return JobStore(await self.database(), clock=self.clock, limits=self.limits)

    async def keys(self) -> KeyStore:
        """The API keys. Raises QueueUnavailable; SecretUnavailable where what they are hashed with is not there."""
        database = await self.database()
        if self._keys is None:
            secret = await to_thread.run_sync(read_secret, self._settings)
            self._keys = KeyStore(database, secret=secret, clock=self.clock)
        return self._keys

    async def _ask(self) -> bool:
        try:
            await self.keys()
            async with (await self.database()).read() as connection:
                await connection.execute(text("SELECT 1"))
        except (CtxplanError, SQLAlchemyError, OSError):
            return False
        return True

    def _begin(self) -> None:
        self._opening = asyncio.create_task(self._open())
        self._opening.add_done_callback(_seen)

    async def _open(self) -> Database:
        database: Database | None = None
        try:
            database = Database(self._settings.database_url)
            done = await migrate(database)
        except Exception as error:  # one that nobody expected is no reason never to try again
            if database is not None:
                await database.dispose()
            self._failed_at = asyncio.get_running_loop().time()
            if str(error) != self._fault:
                trace = None if isinstance(error, CtxplanError) else error
                self.log.warning("the queue is not available", detail=str(error), exc_info=trace)
            self._fault = str(error)
            self._opening = None
            raise QueueUnavailable from None
        except BaseException:
            if database is not None:
                await database.dispose()
            raise
        if done.newer:
            self.log.warning("the database is of a later release", revision=done.after)
        self._fault = ""
        self._database = database
        if self._settings.require_keys:
            await self._say_where_no_key_is(database)
        return database

    async def _say_where_no_key_is(self, database: Database) -> None:
        """Every request is refused until one is made, which the operator is to hear from the service and not from
        whoever it refuses. On an address that others reach, `ctxplan serve` does not even start."""
        with suppress(SQLAlchemyError, OSError):
            # To count them, what they are hashed with is not needed.
            if await KeyStore(database, secret=b"", clock=self.clock).count_valid() == 0:
                self.log.warning(
                    "every request needs an API key, and there is none", make="ctxplan keys create NAME --scope plan"
                )

    async def _close(self) -> None:
        if self._opening is not None and not self._opening.done():
            # A migration that is broken off is rolled back, but to let it end is kinder to whoever waits for its lock.
            await asyncio.wait({self._opening}, timeout=STOP_SECONDS)
            self._opening.cancel()
            with suppress(asyncio.CancelledError, CtxplanError):
                await self._opening
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait({self._asking}, timeout=STOP_SECONDS)
        if self._database is not None:
            await self._database.dispose()


def _seen(task: asyncio.Task[Database]) -> None:
    """Look at how it ended, so that nobody is told of an error which was logged already."""
    if not task.cancelled():
        task.exception()


def _utc_now() -> datetime:
    return datetime.now(UTC)
