"""What `/metrics` says of the queue, and how little it asks for that."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from app.backend import QueueUnavailable
from app.jobs import counting
from app.jobs.counting import Counting
from app.main import create_app
from app.queue import LeaseLost
from app.settings import Settings
from ctxplan.calibrations import shipped
from tests.app.measuring import LEASES, WORKER, WORKERS, lease, result_of, send, service, submit
from tests.app.queue.helpers import LEASE, OK, Clock, Queue, job, worker

GPU = "H100-80GB"


@pytest.fixture(autouse=True)
def counted_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "KEPT_SECONDS", -1.0)
    monkeypatch.setattr(counting, "PATIENCE_SECONDS", 60.0)
    monkeypatch.setattr(counting, "SHARE", float("inf"))


def samples(client: TestClient) -> dict[tuple[str, ...], float]:
    """Every sample of the queue: its name without the prefix and its labels, ordered by theirs."""
    return {
        (sample.name.removeprefix("ctxplan_queue_"), *dict(sorted(sample.labels.items())).values()): sample.value
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
        if sample.name.startswith("ctxplan_queue_")
    }


def test_jobs_leases_and_results_are_counted_by_the_kind_of_card(queue_client: TestClient) -> None:
    submit(queue_client)
    submit(queue_client, requires={"gpu": None})
    submit(queue_client, requires={"gpu": "L4-24GB"})
    for off in (0.0, 0.5):
        held = lease(queue_client)
        send(queue_client, held, "result", result_of(held, off=off))
    submit(queue_client)
    submit(queue_client)
    lease(queue_client)
    found = samples(queue_client)
    assert found["jobs", GPU, "succeeded"] == 1
    assert found["jobs", "any", "succeeded"] == 1
    assert found["jobs", GPU, "leased"] == found["leases", GPU] == 1
    assert found["jobs", GPU, "queued"] == found["jobs", "L4-24GB", "queued"] == 1
    assert found["jobs", GPU, "failed"] == found["leases", "any"] == 0
    assert (found["leases_given_total", GPU], found["leases_given_total", "any"]) == (2, 1)
    assert {state: found["results", state] for state in ("accepted", "quarantined", "late")} == {
        "accepted": 1,
        "quarantined": 1,
        "late": 0,
    }
    assert found["oldest_queued_seconds", "any"] == 0
    assert 0 <= found["oldest_queued_seconds", GPU] < 60


def test_an_empty_queue_has_no_job_and_no_result(queue_client: TestClient) -> None:
    found = samples(queue_client)
    assert {key: value for key, value in found.items() if value} == {("counted",): 1}
    assert found["results", "late"] == 0


def test_workers_are_counted_while_they_speak(queue_client: TestClient) -> None:
    for name in ("a", "b"):
        assert queue_client.post(LEASES, json={"worker": {**WORKER, "id": name}}).status_code == 204
    queue_client.post(f"{WORKERS}/b/draining", json={"draining": True})
    found = samples(queue_client)
    assert (found["workers", "false", GPU], found["workers", "true", GPU]) == (1, 1)


async def test_who_fell_silent_is_counted_no_more_and_ages_are_told_by_the_servers_clock(queue: Queue) -> None:
    from app.queue.counts import ALIVE_SECONDS, count

    await queue.add()
    await queue.store.see_worker(worker("a"), name="a")
    queue.clock.move(ALIVE_SECONDS + 1)
    await queue.store.see_worker(worker("b"), name="b")
    async with queue.database.read() as connection:
        found = await count(connection, queue.clock())
    assert found.workers == {(GPU, False): 1}
    assert (found.at - found.oldest_queued["any"]).total_seconds() == ALIVE_SECONDS + 1


async def test_a_lease_that_ran_out_is_held_by_nobody(queue: Queue) -> None:
    from app.queue.counts import count

    await queue.add()
    await queue.take()
    async with queue.database.read() as connection:
        assert (await count(connection, queue.clock())).leases == {"any": 1}
        queue.clock.move(61)
        found = await count(connection, queue.clock())
    assert (found.leases, found.jobs) == ({}, {("leased", "any"): 1})


@pytest.fixture
async def queue(database: Any) -> Queue:
    return Queue(database, clock=Clock())


async def test_a_job_waits_since_it_was_last_queued(queue: Queue) -> None:
    from app.queue.counts import count

    async def waited() -> float:
        async with queue.database.read() as connection:
            counts = await count(connection, queue.clock())
        (depth,) = await queue.store.depth()
        assert depth.since == counts.oldest_queued["any"]
        return (counts.at - depth.since).total_seconds()

    (job_id,) = await queue.add(job(max_attempts=3))
    queue.clock.move(100)
    assert await waited() == 100
    first = await queue.take()
    queue.clock.move(10)
    await queue.store.fail(first.key, "broken")
    queue.clock.move(7)
    assert await waited() == 7
    silent = await queue.take()
    queue.clock.move(LEASE + 1)
    await queue.store.sweep()
    queue.clock.move(5)
    with pytest.raises(LeaseLost):
        await queue.store.complete(silent.key, OK)
    assert await waited() == 5, "a late result queues nothing"
    returned = await queue.take()
    queue.clock.move(3)
    await queue.store.give_back(returned.key)
    assert await waited() == 0
    await queue.store.cancel(job_id)
    queue.clock.move(50)
    await queue.store.retry(job_id)
    queue.clock.move(2)
    assert await waited() == 2
    await queue.assert_sound()


def test_a_count_that_fails_in_whatever_way_leaves_the_rest_of_the_scrape_and_is_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A time that is none: no error of the database's own, but one from reading what it gave."""
    url = f"sqlite:///{tmp_path}/x.db"

    def set_time(time: str) -> None:
        with closing(sqlite3.connect(tmp_path / "x.db")) as database, database:
            database.execute("UPDATE jobs SET created_at = ?", (time,))

    with service(url, tmp_path, log_level="warning") as client:
        submit(client)
        set_time("once")
        response = client.get("/metrics")
        assert response.status_code == 200
        assert "ctxplan_calibration_points" in response.text
        assert samples(client) == {("counted",): 0}
        set_time("2026-03-01 12:00:00.000000")
        found = samples(client)
        assert (found["counted",], found["jobs", GPU, "queued"]) == (1, 1)
    said = [line for line in capsys.readouterr().err.splitlines() if "cannot be counted" in line]
    assert len(said) == 1
    assert "ValueError" in said[0]


def test_where_there_is_no_queue_nothing_is_said_of_it(tmp_path: Path) -> None:
    settings = Settings(allow_hub=False, log_level="error", database_url=f"sqlite:///{tmp_path}/missing/x.db")
    with TestClient(create_app(settings)) as client:
        assert samples(client) == {("counted",): 0}
        assert "ctxplan_calibration_points" in client.get("/metrics").text


def test_the_calibrations_reach_is_told(client: TestClient) -> None:
    text = client.get("/metrics").text
    for path, measured in shipped().measured.items():
        assert f'ctxplan_calibration_families{{path="{path}"}} {float(len(measured.families))}' in text
        assert f'ctxplan_calibration_tokens{{path="{path}"}} {float(measured.tokens.most)}' in text


class Backend:
    """Counts how often it is asked for its database, which is away or slow."""

    def __init__(self, *, slow: asyncio.Event | None = None) -> None:
        self.asked = 0
        self._slow = slow

    async def database(self) -> Any:
        self.asked += 1
        if self._slow is not None:
            await self._slow.wait()
        raise QueueUnavailable


async def test_the_database_is_counted_once_in_a_while_however_often_that_is_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counting, "KEPT_SECONDS", 5.0)
    now, backend = [0.0], Backend()
    one = Counting(backend, time=lambda: now[0])  # type: ignore[arg-type]
    for _ in range(10):
        assert await one.latest() is None
    assert backend.asked == 1
    now[0] = 6.0
    await asyncio.gather(*(one.latest() for _ in range(10)))
    assert backend.asked == 2


async def test_whoever_asks_does_not_wait_long_for_a_database_that_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counting, "PATIENCE_SECONDS", 0.01)
    backend = Backend(slow=asyncio.Event())
    one = Counting(backend)  # type: ignore[arg-type]
    assert [await one.latest() for _ in range(3)] == [None] * 3
    assert backend.asked == 1
    await one.stop()


async def test_counting_takes_a_small_share_of_the_time(database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a count took a second, the next one begins twenty seconds later."""
    monkeypatch.setattr(counting, "SHARE", 0.05)
    ticks = iter([0.0, 0.0, 1.0, 1.0, 19.0, 19.0])

    class Found:
        clock = Clock()
        asked = 0

        async def database(self) -> Any:
            self.asked += 1
            return database

    backend = Found()
    one = Counting(backend, time=lambda: next(ticks))  # type: ignore[arg-type]
    assert await one.latest() is not None
    assert await one.latest() is not None
    assert backend.asked == 1


def test_a_scrape_reads_a_queue_that_has_just_come_back(tmp_path: Path) -> None:
    with service(f"sqlite:///{tmp_path}/x.db", tmp_path) as client:
        submit(client)
        assert samples(client)["jobs", GPU, "queued"] == 1
