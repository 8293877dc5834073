"""Brings the schema to this release's, at start.

Any number of processes may start at once: one migrates, in one transaction, while the others wait for it. A change
expands first (the release before still runs on the new schema) and contracts a release later, so a rolling deployment
has no moment at which a running process meets a schema it cannot use. For the same reason a schema that is newer than
this release is left as it is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database.engine import BUSY_SECONDS, Database
from app.database.errors import MigrationFailed

MIGRATIONS = Path(__file__).resolve().parents[1] / "migrations"
_ALEMBIC = Lock()
LOCK = 0x63747870_6C616E00
"""Any number that no other use of PostgreSQL's advisory locks in the same database has: "ctxplan"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """What `migrate` found and left. ``newer``: the schema is of a later release than this one, and was left alone."""

    before: str | None
    after: str | None
    newer: bool = False


async def migrate(database: Database, *, to: str = "head") -> Migrated:
    """Upgrade the schema under a lock; wait while another process does.

    Raises:
        MigrationFailed: the database cannot be reached, or a migration failed and was rolled back whole.
    """
    try:
        async with _alone_in_this_process():
            if database.is_sqlite:
                return await _migrate_sqlite(database, to)
            async with database.write() as connection:
                # Let go at the end of the transaction, however that comes.
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
                return await connection.run_sync(_upgrade, to)
    except (SQLAlchemyError, OSError) as error:
        reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
        raise MigrationFailed(f"the schema could not be brought to {to}: {reason}") from error


@asynccontextmanager
async def _alone_in_this_process() -> AsyncIterator[None]:
    """Alembic keeps what it runs in variables of its modules: of two services in one process, one waits."""
    while not _ALEMBIC.acquire(blocking=False):
        await asyncio.sleep(0.02)
    try:
        yield
    finally:
        _ALEMBIC.release()


async def _migrate_sqlite(database: Database, to: str) -> Migrated:
    """The write lock is the lock. A table is changed by making it anew, during which no foreign key can hold."""
    async with database.bare() as connection:
        await _write_ahead(connection)
        await connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
        try:
            await connection.exec_driver_sql("BEGIN IMMEDIATE")
            try:
                done = await connection.run_sync(_upgrade, to)
                await connection.run_sync(_check_foreign_keys)
                await connection.exec_driver_sql("COMMIT")
            except BaseException:
                await connection.exec_driver_sql("ROLLBACK")
                raise
        finally:
            await connection.exec_driver_sql("PRAGMA foreign_keys=ON")
    return done


async def _write_ahead(connection: AsyncConnection) -> None:
    """Have SQLite keep a log, so that readers and a writer never wait for each other: the file's own, from now on.

    For this one change SQLite does not wait where another process makes it as well, but gives up at once.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + BUSY_SECONDS
    while True:
        try:
            await connection.exec_driver_sql("PRAGMA journal_mode=WAL")
        except OperationalError as error:
            if "locked" not in str(error.orig) or clock() >= until:
                raise
            await asyncio.sleep(0.02)
        else:
            return


def _check_foreign_keys(connection: Connection) -> None:
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    if broken:
        raise MigrationFailed(f"{len(broken)} rows refer to rows that are gone, the first in table {broken[0][0]}")


def _upgrade(connection: Connection, to: str) -> Migrated:
    config = configuration(connection)
    before = current(connection)
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if before is not None and before not in known:
        return Migrated(before=before, after=before, newer=True)
    command.upgrade(config, to)
    return Migrated(before=before, after=current(connection))


def configuration(connection: Connection) -> Config:
    """Alembic's, for the migrations of this package on an open connection."""
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


def current(connection: Connection) -> str | None:
    """The revision that the schema is at; None where it has none yet."""
    return MigrationContext.configure(connection).get_current_revision()
