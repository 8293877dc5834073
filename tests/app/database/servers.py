"""Both databases, real ones. Every test that takes ``database`` or ``database_url`` runs on each."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import delete
from sqlalchemy.engine import make_url

from app.database import Database, migrate
from app.database.models import Base
from benchmarks.postgres import postgresql

BACKENDS = ("sqlite", "postgresql")
_NUMBERS = count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    with postgresql(durable=False) as url:
        yield url


def new_url(request: pytest.FixtureRequest, backend: str, directory: Path) -> str:
    """The URL of an empty database."""
    if backend == "sqlite":
        return f"sqlite+aiosqlite:///{directory / f'{next(_NUMBERS)}.db'}"
    server = make_url(request.getfixturevalue("postgres_server"))
    name = f"test_{next(_NUMBERS)}"
    with psycopg.connect(host=str(server.query["host"]), user="ctxplan", dbname="postgres", autocommit=True) as one:
        one.execute(f"CREATE DATABASE {name}")
    return server.set(database=name).render_as_string(hide_password=False)


@pytest.fixture(scope="session", params=BACKENDS)
def database_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with the schema of today's migrations, made once; `database` removes the rows after each test."""
    url = new_url(request, request.param, tmp_path_factory.mktemp("database"))

    async def make() -> None:
        database = Database(url)
        await migrate(database)
        await database.dispose()

    asyncio.run(make())
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url)
    yield database
    try:
        await remove_rows(database)
    finally:
        await database.dispose()


@pytest.fixture(params=BACKENDS)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without a schema, a new one for each test."""
    return new_url(request, request.param, tmp_path)


async def remove_rows(database: Database) -> None:
    """Empty every table. DELETE: for a few rows it is many times faster than TRUNCATE."""
    async with database.write() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            await connection.execute(delete(table))
