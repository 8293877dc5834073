"""SQLite's connections, with one trip to their thread for each statement.

aiosqlite keeps a thread for each connection and sends it every call: to make a cursor, to execute, to fetch and to
close, four trips for one statement. SQLite answers most statements sooner than such a trip takes, and while it goes
to and fro the write lock is held. Here the thread executes and fetches in one go, and nothing else is sent.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Any

import aiosqlite


class OneTripConnection(aiosqlite.Connection):
    """A connection whose cursors make one trip for a statement."""

    def cursor(self) -> OneTripCursor:  # type: ignore[override]  # theirs can be awaited; SQLAlchemy enters it
        """A cursor, made here: sqlite3 allows it on any thread of a connection that is opened for several."""
        return OneTripCursor(self, self._conn.cursor())


class OneTripCursor(aiosqlite.Cursor):
    """A cursor that has all its rows when it has executed."""

    def __init__(self, connection: OneTripConnection, cursor: sqlite3.Cursor) -> None:
        super().__init__(connection, cursor)
        self._rows: list[Any] = []

    async def execute(self, sql: str, parameters: Iterable[Any] | None = None) -> OneTripCursor:
        """Execute, and fetch every row. A statement that is done holds no lock, whoever still refers to it."""
        self._rows = await self._execute(self._all, sql, parameters or ())  # type: ignore[no-untyped-call]
        return self

    async def fetchall(self) -> list[Any]:
        """The rows, once."""
        rows, self._rows = self._rows, []
        return rows

    async def close(self) -> None:
        """Nothing is open any more."""

    def _all(self, sql: str, parameters: Iterable[Any]) -> list[Any]:
        self._cursor.execute(sql, parameters)  # type: ignore[arg-type]
        return self._cursor.fetchall() if self._cursor.description else []


async def connect(*arguments: Any, **options: Any) -> OneTripConnection:
    """Open a file, with the arguments of `sqlite3.connect`, and see a thread off that could not.

    Where opening fails, aiosqlite 0.22 tells its thread to end and does not wait for it; the thread's last word then
    meets an event loop that may be closed.
    """
    connection = OneTripConnection(lambda: sqlite3.connect(*arguments, **options), iter_chunk_size=64)
    connection._thread.daemon = True
    try:
        await connection
    except sqlite3.Error:
        connection._thread.join()  # it has ended but for returning
        raise
    return connection
