from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, text
from sqlalchemy.engine import make_url

from app.database import Database, Migrated, MigrationFailed, migrate
from app.database.migrate import current
from app.database.models import Base
from app.queue import JobStore, State, WorkerFacts
from app.queue.audit import audit

FIRST, HEAD = "0001", "0005"
AT = "2026-03-01 12:00:00.000000+00:00"
# What a release at the first revision writes, and reads.
ROWS_OF_THE_FIRST = [
    "INSERT INTO campaigns (id, model, state, points, created_at) VALUES (7, 'a/model', 'measuring', 2, :at)",
    "INSERT INTO submissions (id, submitter, body_digest, campaign_id, created_at) VALUES (7, 'me', 'd', 7, :at)",
    "INSERT INTO requirements (id, digest, gpu, versions) VALUES (7, 'r', 'H100-80GB', '{}')",
    "INSERT INTO jobs (id, submission_id, position, campaign_id, point, point_digest, requirement_id, min_total_bytes,"
    " priority, state, attempts, max_attempts, losses, epoch, last_seq, failures, created_at)"
    " VALUES (7, 7, 0, 7, '{\"steps\": 3}', 'p', 7, 0, 0, 'queued', 0, 3, 0, 0, 1, '[]', :at)",
    "INSERT INTO jobs (id, submission_id, position, campaign_id, point, point_digest, requirement_id, min_total_bytes,"
    " priority, state, attempts, max_attempts, losses, epoch, last_seq, failures, created_at, finished_at)"
    " VALUES (8, 7, 1, 7, '{\"steps\": 4}', 'q', 7, 0, 0, 'succeeded', 1, 3, 0, 1, 3, '[]', :at, :at)",
    "INSERT INTO measurements (id, point_digest, job_id, epoch, document, document_digest, state, received_at)"
    " VALUES (5, 'q', 8, 1, '{\"outcome\": \"ok\"}', 'd', 'accepted', :at)",
    "INSERT INTO job_events (job_id, seq, at, kind, epoch, detail) VALUES (7, 1, :at, 'submitted', 0, '{}')",
    "INSERT INTO job_events (job_id, seq, at, kind, epoch, detail) VALUES (8, 1, :at, 'submitted', 0, '{}')",
    "INSERT INTO job_events (job_id, seq, at, kind, epoch, worker, detail)"
    " VALUES (8, 2, :at, 'leased', 1, 'w', '{\"token_hash\": \"t\"}')",
    "INSERT INTO job_events (job_id, seq, at, kind, epoch, worker, detail)"
    " VALUES (8, 3, :at, 'succeeded', 1, 'w', '{\"measurement\": 5}')",
]


async def insert_rows_of_the_first(database: Database) -> None:
    async with database.write() as connection:
        for statement in ROWS_OF_THE_FIRST:
            # A colon within the JSON is no parameter.
            await connection.execute(text(statement.replace('": ', '"\\: ')), {"at": AT})


def schema_differences(connection: Connection) -> list[Any]:
    # SQLite cannot say that a column of an index descends; the definitions are compared below.
    def compared(_: object, name: str | None, *__: object) -> bool:
        return name != "ix_jobs_claim"

    context = MigrationContext.configure(connection, opts={"include_object": lambda _, name, *rest: compared(_, name)})
    return list(compare_metadata(context, Base.metadata))


def index_definitions(connection: Connection) -> dict[str, str]:
    if connection.dialect.name == "sqlite":
        query = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL"
    else:
        query = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
    rows = connection.execute(text(query))
    return {name: " ".join(sql.split()) for name, sql in rows if not name.startswith(("pk_alembic", "alembic"))}


async def test_the_migrations_make_the_schema_that_the_models_say(database: Database) -> None:
    async with database.read() as connection:
        assert await connection.run_sync(schema_differences) == []


async def test_every_index_is_the_models_own_with_its_order_and_its_condition(
    database: Database, empty_url: str
) -> None:
    if make_url(empty_url).drivername.startswith("sqlite") != database.is_sqlite:
        pytest.skip("two databases of one kind are compared")
    metadata: MetaData = Base.metadata
    fresh = Database(empty_url)
    try:
        async with fresh.write() as connection:
            await connection.run_sync(metadata.create_all)
            expected = await connection.run_sync(index_definitions)
    finally:
        await fresh.dispose()
    async with database.read() as connection:
        assert await connection.run_sync(index_definitions) == expected
    assert "DESC" in expected["ix_jobs_claim"]


async def test_an_upgrade_from_the_first_revision_keeps_what_was_there_and_goes_on_with_it(empty_url: str) -> None:
    database = Database(empty_url)
    try:
        assert await migrate(database, to=FIRST) == Migrated(before=None, after=FIRST)
        await insert_rows_of_the_first(database)
        assert await migrate(database) == Migrated(before=FIRST, after=HEAD)
        store = JobStore(database)
        assert (await store.get(8)).state is State.SUCCEEDED
        lease = await store.claim(WorkerFacts(id="w", gpu="H100-80GB", total_bytes=2**36))
        assert lease is not None
        assert (lease.key.job_id, lease.point) == (7, {"steps": 3})
        await store.complete(lease.key, {"outcome": "ok"})
        assert (await audit(database)).findings == ()
        assert (await store.campaign(7)).calibration_id is None
        async with database.read() as connection:
            assert await connection.run_sync(schema_differences) == []
    finally:
        await database.dispose()


async def test_what_the_release_before_writes_is_taken_by_the_schema_of_this_one(database: Database) -> None:
    await insert_rows_of_the_first(database)
    assert (await audit(database)).findings == ()


async def test_a_schema_that_is_up_to_date_is_left_as_it_is(database: Database) -> None:
    assert await migrate(database) == Migrated(before=HEAD, after=HEAD)


async def test_a_schema_of_a_later_release_is_left_as_it_is_and_said_to_be_one(empty_url: str) -> None:
    database = Database(empty_url)
    try:
        await migrate(database)
        async with database.write() as connection:
            await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
        assert await migrate(database) == Migrated(before="9999", after="9999", newer=True)
    finally:
        await database.dispose()


async def test_of_processes_that_start_at_once_one_migrates_and_the_others_wait_for_it(empty_url: str) -> None:
    databases = [Database(empty_url) for _ in range(4)]
    try:
        done = await asyncio.gather(*(migrate(database) for database in databases))
        assert sorted(str(one.before) for one in done) == [HEAD, HEAD, HEAD, "None"]
        assert {one.after for one in done} == {HEAD}
    finally:
        for database in databases:
            await database.dispose()


async def test_a_migration_that_fails_leaves_the_schema_as_it_was(empty_url: str) -> None:
    database = Database(empty_url)
    try:
        await migrate(database, to=FIRST)
        await insert_rows_of_the_first(database)
        async with database.write() as connection:
            await connection.execute(text("CREATE TABLE api_keys (id INTEGER)"))  # in the second one's way, at its end
        with pytest.raises(MigrationFailed, match="api_keys"):
            await migrate(database)
        async with database.read() as connection:
            assert await connection.run_sync(current) == FIRST
            columns = (await connection.execute(text("SELECT * FROM campaigns"))).keys()
        assert "calibration_id" not in columns
        async with database.write() as connection:
            await connection.execute(text("DROP TABLE api_keys"))
        assert (await migrate(database)).after == HEAD
    finally:
        await database.dispose()


async def test_a_database_that_cannot_be_reached_is_a_migration_that_failed(tmp_path: Any) -> None:
    for url in (f"sqlite:///{tmp_path}/missing/x.db", f"postgresql://me:secret@/x?host={tmp_path}"):
        database = Database(url)
        with pytest.raises(MigrationFailed) as failed:
            await migrate(database)
        assert "secret" not in str(failed.value)
        await database.dispose()


def test_services_of_one_process_do_not_meet_in_what_alembic_keeps(tmp_path: Path) -> None:
    async def migrated(name: int) -> Migrated:
        database = Database(f"sqlite+aiosqlite:///{tmp_path / str(name)}.db")
        try:
            return await migrate(database)
        finally:
            await database.dispose()

    with ThreadPoolExecutor(6) as threads:
        done = list(threads.map(lambda name: asyncio.run(migrated(name)), range(12)))
    assert {one.after for one in done} == {HEAD}
