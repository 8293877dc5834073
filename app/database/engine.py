"""Connections and transactions.

A transaction is one of two kinds, and says which. One that **reads** sees a state and never waits for a writer. One
that **writes** takes SQLite's only write lock at its start (``BEGIN IMMEDIATE``), so that what it has read cannot
change before it writes; on PostgreSQL it runs as READ COMMITTED, where every change is guarded by its own WHERE.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext, suppress
from functools import partial
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, event
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import QueuePool

from app.database.errors import InvalidDatabaseUrl
from app.database.onetrip import connect
from app.database.url import KEY, read_url

BUSY_SECONDS = 30
"""How long SQLite waits for a lock that another process holds."""
STATEMENT_MILLISECONDS = 60_000
"""The longest that PostgreSQL works on one statement, or lets a transaction lie idle."""
RETURN_SECONDS = 10.0
"""How long `Database.dispose` waits for connections that are still in use."""
_BEGIN = "ctxplan_begin"


class Database:
    """An engine, and the transactions on it. Made and disposed of in the same event loop."""

    def __init__(self, url: str, *, pool_size: int = 16, read_only: bool = False) -> None:
        """Prepare to connect; nothing is opened yet.

        Args:
            url: of a SQLite file or of a PostgreSQL database; see `app.database.url`.
            pool_size: connections kept open. As many again are opened where those are all in use.
            read_only: refuse every change, and make no SQLite file where there is none.

        Raises:
            InvalidDatabaseUrl: as `read_url`, or the database's driver is not installed.
        """
        parsed = read_url(url)
        self.is_sqlite = parsed.drivername.startswith("sqlite")
        try:
            self.engine = _engine(parsed, pool_size, read_only=read_only)
        except ImportError:
            allowed = "with ctxplan[postgres] installed"
            raise InvalidDatabaseUrl("the driver is missing", key=KEY, allowed=allowed) from None
        self._writing = self.engine.execution_options(**{_BEGIN: "IMMEDIATE"})
        self._snapshots = (
            self.engine if self.is_sqlite else self.engine.execution_options(isolation_level="REPEATABLE READ")
        )
        # SQLite's own waiting is a retry at growing intervals, in which a late comer may win. Within this process
        # writers queue here instead, in order.
        self._turn: AbstractAsyncContextManager[Any] = asyncio.Lock() if self.is_sqlite else nullcontext()
        self._in_use: set[asyncio.Future[Any]] = set()

    @asynccontextmanager
    async def read(self, *, snapshot: bool = False) -> AsyncIterator[AsyncConnection]:
        """A transaction that reads. With ``snapshot``, all its statements see one state, on PostgreSQL too."""
        async with self._connected(self._snapshots if snapshot else self.engine) as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that writes: committed at the end of the block, or rolled back where that raises."""
        async with self._turn, self._connected(self._writing) as connection, connection.begin():
            yield connection

    @asynccontextmanager
    async def bare(self) -> AsyncIterator[AsyncConnection]:
        """A connection of SQLite's on which nothing is begun: the caller does, and ends it."""
        async with self._turn, self._connected(self.engine.execution_options(**{_BEGIN: None})) as connection:
            yield connection

    @asynccontextmanager
    async def read_session(self) -> AsyncIterator[AsyncSession]:
        """`read`, for mapped objects."""
        async with self.read() as connection, _session(connection) as session:
            yield session

    @asynccontextmanager
    async def write_session(self) -> AsyncIterator[AsyncSession]:
        """`write`, for mapped objects; flushed and committed at the end of the block."""
        async with self.write() as connection, _session(connection) as session:
            yield session
            await session.flush()

    async def dispose(self) -> None:
        """Close every connection. Those in use are waited for, at most `RETURN_SECONDS`.

        The pool would forget a connection that comes back to it later, still open.
        """
        if self._in_use:
            await asyncio.wait(self._in_use, timeout=RETURN_SECONDS)
        await self.engine.dispose()

    @asynccontextmanager
    async def _connected(self, engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
        """A connection, which is given back however the block ends, and before `dispose` does.

        Whoever asked may be cancelled at any await. Where a new connection has to be made, that is waited for all the
        same: a driver that is broken off in it leaves a thread behind, which nobody ends.
        """
        returned = asyncio.get_running_loop().create_future()
        self._in_use.add(returned)

        def give_back(_: object = None) -> None:
            self._in_use.discard(returned)
            if not returned.done():
                returned.set_result(None)

        try:
            idle = isinstance(engine.pool, QueuePool) and engine.pool.checkedin() > 0
            connection = await (engine.connect() if idle else _made(engine))
        except BaseException:
            give_back()
            raise
        try:
            yield connection
        finally:
            closing = asyncio.ensure_future(connection.close())
            closing.add_done_callback(give_back)
            await asyncio.shield(closing)


async def _made(engine: AsyncEngine) -> AsyncConnection:
    async def make() -> AsyncConnection:
        return await engine.connect()

    making = asyncio.ensure_future(make())
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        with suppress(Exception):
            await (await making).close()
        raise


def _session(connection: AsyncConnection) -> AsyncSession:
    return AsyncSession(connection, autoflush=False, expire_on_commit=False)


def _engine(url: URL, pool_size: int, *, read_only: bool) -> AsyncEngine:
    # allow_nan: a document that is no JSON is refused here, not by whoever reads it.
    options: dict[str, Any] = {
        "json_serializer": partial(json.dumps, allow_nan=False, separators=(",", ":")),
        "pool_size": pool_size,
        "max_overflow": pool_size,
    }
    if url.drivername.startswith("sqlite"):
        arguments, more = url.get_dialect()().create_connect_args(url)
        if read_only:
            arguments, more = [f"file:{quote(str(arguments[0]))}?mode=ro"], {**more, "uri": True}
        options["async_creator"] = partial(connect, *arguments, **{**more, "timeout": BUSY_SECONDS})
        # The pool need not send one more rollback: every transaction ends with its block.
        options["pool_reset_on_return"] = None
        engine = create_async_engine(url, **options)
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
        event.listen(engine.sync_engine, "begin", _begin_sqlite)
        event.listen(engine.sync_engine, "invalidate", _let_go)
        return engine
    limits = (
        f"-c statement_timeout={STATEMENT_MILLISECONDS} -c idle_in_transaction_session_timeout={STATEMENT_MILLISECONDS}"
        + (" -c default_transaction_read_only=on" if read_only else "")
    )
    return create_async_engine(url, connect_args={"options": limits}, pool_pre_ping=True, **options)


def _prepare_sqlite(dbapi_connection: Any, _: object) -> None:
    # The driver would begin transactions by itself, late and never for a SELECT: it is told to leave that to us.
    dbapi_connection.isolation_level = None
    cursor = dbapi_connection.cursor()
    for pragma in ("synchronous=NORMAL", "foreign_keys=ON", f"busy_timeout={BUSY_SECONDS * 1000}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    kind = connection.get_execution_options().get(_BEGIN, "DEFERRED")
    if kind is not None:
        connection.exec_driver_sql(f"BEGIN {kind}")


def _let_go(dbapi_connection: Any, _: object, __: object) -> None:
    # A connection that is closed with a statement half done, as a cancelled one is, keeps its lock until the last
    # reference to that statement is gone; a rollback ends both.
    with suppress(Exception):
        dbapi_connection.rollback()
