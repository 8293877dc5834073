from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database import Database
from app.queue import LeaseLost, Submission
from app.queue.audit import Audit, audit, main
from tests.app.queue.helpers import LEASE, OK, Queue, job


async def lively(database: Database) -> Queue:
    """A queue in which every kind of event has happened, to jobs of one campaign; the last of them is leased."""
    queue = Queue(database)
    steps = tuple(job(steps, max_attempts=2) for steps in range(2, 8))
    ids = (await queue.store.submit(Submission(submitter="me", jobs=steps, campaign_model="a/model"))).job_ids
    late = await queue.take(name="late")
    queue.clock.move(LEASE)
    await queue.store.sweep()
    with pytest.raises(LeaseLost):
        await queue.store.complete(late.key, OK)
    await queue.store.complete((await queue.take()).key, OK)
    await queue.store.fail((await queue.take()).key, "crashed")
    await queue.store.give_back((await queue.take()).key)
    await queue.store.fail((await queue.take()).key, "crashed")
    await queue.store.retry(ids[1])
    await queue.store.cancel(ids[2])
    await queue.take()
    return queue


async def test_a_queue_in_which_everything_has_happened_is_sound(database: Database) -> None:
    await lively(database)
    found = await audit(database)
    assert found == Audit(jobs=6, events=20, measurements=1, findings=())


@pytest.mark.parametrize(
    ("statement", "finding"),
    [
        ("UPDATE jobs SET state = 'queued', lease_expires_at = NULL WHERE id = :leased", "state is queued, and leased"),
        ("UPDATE jobs SET state = 'failed' WHERE id = :first", "state is failed, and succeeded"),
        ("UPDATE jobs SET epoch = epoch - 1 WHERE id = :leased", "epoch is"),
        ("UPDATE jobs SET attempts = 0 WHERE id = :leased", "attempts is 0"),
        ("UPDATE jobs SET losses = 5 WHERE id = :first", "losses is 5"),
        ("UPDATE jobs SET position = 99 WHERE id = :leased", "the last number 99"),
        ("UPDATE campaigns SET points = 7", "has 6 jobs for 7 points"),
        ("DELETE FROM measurements WHERE job_id = :first", "measurements []"),
        ("UPDATE measurements SET epoch = 1 WHERE job_id = :first", "measurements [("),
        ("UPDATE measurements SET job_id = :leased", "measurements [("),
        (
            "UPDATE measurements SET state = 'quarantined', quarantine_reason = 'x'",
            "its measurement is quarantined, and accepted by its history",
        ),
        ("UPDATE job_events SET kind = 'released' WHERE job_id = :first AND seq = 3", "released while leased"),
        ("UPDATE job_events SET kind = 'released' WHERE job_id = :first AND seq = 6", "which is not its own"),
        ("DELETE FROM late_results", "late results []"),
        ("DELETE FROM job_events WHERE job_id = :first", "has no history"),
        ("DELETE FROM job_events WHERE job_id = :first AND seq = 2", "follows number 1"),
        ("DELETE FROM job_events WHERE job_id = :first AND seq = 6", "state is succeeded, and leased"),
        ("UPDATE job_events SET kind = 'succeeded' WHERE job_id = :first AND seq = 3", "leased while succeeded"),
        ("UPDATE job_events SET kind = 'retried' WHERE job_id = :first AND seq = 3", "retried while leased"),
        ("UPDATE job_events SET kind = 'vanished' WHERE job_id = :first AND seq = 5", "is no kind of event"),
        ("UPDATE job_events SET epoch = 1 WHERE job_id = :first AND seq = 5", "epoch 1 follows 1"),
        ("UPDATE job_events SET epoch = 7 WHERE job_id = :first AND seq = 3", "in epoch 7, while that is 1"),
        ("UPDATE job_events SET epoch = 9 WHERE job_id = :first AND seq = 4", "which was never leased"),
        ("UPDATE job_events SET worker = 'x' WHERE job_id = :first AND seq = 4", "a late result by x"),
        ("UPDATE job_events SET worker = 'x' WHERE job_id = :first AND seq = 6", "by x, while w had the job"),
        ("UPDATE job_events SET detail = '{}' WHERE job_id = :first AND seq = 6", "and [(None, 2)] by its history"),
    ],
)
async def test_whatever_was_changed_behind_the_queues_back_is_found(
    database: Database, statement: str, finding: str
) -> None:
    await lively(database)
    async with database.write() as connection:
        await connection.execute(text(statement), await ids(connection))
    findings = (await audit(database)).findings
    assert any(finding in one.what for one in findings), findings


async def test_a_job_that_is_gone_is_missed(database: Database) -> None:
    await lively(database)
    switch = "PRAGMA foreign_keys={}" if database.is_sqlite else "SET session_replication_role = {}"
    off, on = ("OFF", "ON") if database.is_sqlite else ("replica", "origin")
    async with database.bare() if database.is_sqlite else database.write() as connection:
        await connection.exec_driver_sql(switch.format(off))
        await connection.execute(text("DELETE FROM jobs WHERE id = :first"), await ids(connection))
        await connection.exec_driver_sql(switch.format(on))
    found = {one.what for one in (await audit(database)).findings}
    assert {"is gone, and job_events has rows of it", "is gone, and measurements has rows of it"} <= found


async def ids(connection: AsyncConnection) -> dict[str, int]:
    first = (await connection.execute(text("SELECT min(id) FROM jobs"))).scalar_one()
    leased = (await connection.execute(text("SELECT id FROM jobs WHERE state = 'leased'"))).scalar_one()
    return {"first": first, "leased": leased}


def run_audit(*arguments: str, **environment: str) -> tuple[int, Any, str]:
    done = subprocess.run(
        [sys.executable, "-m", "app.queue.audit", *arguments], capture_output=True, text=True, env=environment
    )
    return done.returncode, json.loads(done.stdout) if done.stdout else None, done.stderr


async def test_the_command_writes_what_it_found_and_says_by_its_exit_code_whether_that_is_something(
    database: Database, database_url: str
) -> None:
    await lively(database)
    code, found, _ = run_audit(database_url)
    assert (code, found["jobs"], found["findings"]) == (0, 6, [])
    async with database.write() as connection:
        await connection.execute(text("UPDATE campaigns SET points = 7"))
    code, found, _ = run_audit(CTXPLAN_DATABASE_URL=database_url)
    assert (code, len(found["findings"])) == (1, 1)


def test_where_there_is_no_database_that_is_said_and_none_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTXPLAN_DATABASE_URL", "sqlite+aiosqlite:///ctxplan.db")
    assert main([]) == 4
    assert "there is no database at ctxplan.db" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_something_else_has_no_queue_and_stays_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other.db"
    file.touch()
    assert main([f"sqlite:///{file}"]) == 4
    assert "there is no queue" in capsys.readouterr().err
    assert (file.stat().st_size, list(tmp_path.iterdir())) == (0, [file])


async def test_what_it_reads_with_changes_nothing(database: Database, database_url: str) -> None:
    await lively(database)
    reading = Database(database_url, read_only=True)
    try:
        with pytest.raises(SQLAlchemyError, match=r"read-?only"):
            async with reading.write() as connection:
                await connection.execute(text("UPDATE campaigns SET points = 7"))
        assert (await audit(reading)).findings == ()
    finally:
        await reading.dispose()


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["--url", "x"], 2), (["a", "b"], 2)])
def test_help_is_help_and_an_option_is_no_url(
    arguments: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == code
    said = capsys.readouterr()
    assert "CTXPLAN_DATABASE_URL" in said.out if code == 0 else "usage" in said.err


def test_a_wrong_setting_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("CTXPLAN_LEASE_SECONDS", "x")
    assert main([]) == 2
    assert "CTXPLAN_LEASE_SECONDS" in capsys.readouterr().err


def test_the_command_refuses_what_is_no_database(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mysql://host/name"]) == 2
    assert main([f"sqlite:///{tmp_path}/missing/x.db"]) == 4
    assert capsys.readouterr().out == ""
