"""The trial under load: a short one against the real service, and that it is charged for what the service holds up."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from time import perf_counter

import pytest

from benchmarks.http import SERVICE, serving
from benchmarks.load import report, run
from benchmarks.load.drive import LOST, Answered, Driver
from benchmarks.load.run import P99_SECONDS, Trial
from benchmarks.load.traffic import ESTIMATE, SHARES, Ask, mixed
from benchmarks.memory import resident_bytes
from tests.probes.common import wait_for


@pytest.fixture(scope="module")
def short() -> Iterator[Trial]:
    """Everything that a trial does, in a few seconds."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("WARM_SECONDS", "MAXIMUM_SECONDS"):
            patch.setattr(run, name, 0.3)
        patch.setattr(run, "ROUNDS", 1)
        patch.setenv("CTXPLAN_PLANNING_PROCESSES", "1")
        with serving(SERVICE) as (port, pid):
            yield run.run(port, pid, seconds=2, say=lambda _: None)


def kept() -> Trial:
    """A trial in which every promise was kept."""
    quick = [Answered(kind, 200, 0.002, number / 100) for number in range(200) for kind in SHARES]
    shed = [Answered(ESTIMATE, 503, 0.001, 1.0), Answered(ESTIMATE, 200, 0.01, 0.0)]
    return Trial(seconds=600, maximum=500, held=quick, resident=[2**27] * 50, flood=shed, recovery_seconds=0.1)


def test_the_service_answers_everything_that_is_asked_and_comes_back(short: Trial) -> None:
    assert short.maximum > 0
    assert {one.status for one in short.held} <= {200, 503}
    assert {one.status for one in short.flood} <= {200, 503}
    assert sum(one.status == 200 for one in short.held) > len(short.held) / 2
    assert short.recovery_seconds < 10
    assert short.resident[0] > 2**24
    assert f"| {short.maximum:,.0f} |" in report.table(short)


def test_every_kind_is_asked_in_its_share() -> None:
    asks = mixed(4000)
    assert {ask.kind for ask in asks} == set(SHARES)
    assert sum(SHARES.values()) == 100
    for kind, share in SHARES.items():
        assert sum(ask.kind == kind for ask in asks) / len(asks) == pytest.approx(share / 100, rel=0.3)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"held": [Answered(ESTIMATE, 500, 0.002, 0)]}, "were not answered"),
        ({"held": [Answered(ESTIMATE, 200, 0.03, 0)]}, "took up to 30.0 ms"),
        ({"resident": [2**27] * 10 + [2**28] * 10}, "memory grew by 128.0 MiB"),
        ({"flood": [Answered(ESTIMATE, 503, 0, 0), Answered(ESTIMATE, LOST, 0, 0)]}, "answers with [0]"),
        ({"flood": [Answered(ESTIMATE, 200, 0, 0)]}, "nothing was refused"),
        ({"recovery_seconds": 3.0}, "recovered after 3.0 s"),
    ],
)
def test_a_promise_that_is_broken_is_named(change: dict[str, object], said: str) -> None:
    assert kept().broken == []
    (found,) = replace(kept(), **change).broken  # type: ignore[arg-type]
    assert said in found


def test_the_manuals_table_is_held_to_the_promises(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    page = tmp_path / "operations.md"  # type: ignore[operator]
    monkeypatch.setattr(report, "MANUAL", page)
    page.write_text("<!-- load -->\nNot measured yet.\n<!-- /load -->\n")
    assert "make load" in report.check()[0]
    report.write(kept())
    assert report.check() == []
    for row, worse, said in (
        ("minutes at 70% | 10.0", "minutes at 70% | 1.0", "1.0 minutes are too short a trial"),
        (
            "growth, last fifth against the first, MiB | 0.0",
            "growth, last fifth against the first, MiB | 17.5",
            "17.5 MiB",
        ),
        ("429 or 503 | 50%", "429 or 503 | 0%", "nothing was refused"),
        ("as before | 0.10", "as before | 1.70", "recovered after 1.7 s"),
    ):
        page.write_text(page.read_text().replace(row, worse))
        (found,) = report.check()
        assert said in found
        page.write_text(page.read_text().replace(worse, row))


def test_the_committed_trial_kept_every_promise() -> None:
    assert report.check() == []


Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    """A server of this handler on loopback, and its port; every connection is closed at the end."""
    running: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.append(task)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                await handler(reader, writer)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.gather(*running)


async def test_what_a_stalled_service_holds_up_counts_from_when_it_was_due() -> None:
    """On one connection, each request waits for those before it, and is charged for that."""

    async def answer_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            await asyncio.sleep(0.2)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async def nothing() -> None:
        pass

    asks = [Ask("GET /", "GET", "/", b"")]
    async with listening(answer_slowly) as port:
        driver = Driver(port, limit=1)
        found = await driver.at_rate(asks, per_second=20, seconds=0.3, each_second=nothing)
        await driver.close()
    assert len(found) > 2
    assert [one.status for one in found] == [200] * len(found)
    # The last was due within the first 0.3 seconds, and all before it took 0.2 each.
    assert found[-1].seconds >= 0.2 * len(found) - 0.3


async def test_once_nothing_more_is_due_what_was_not_sent_never_is_and_what_was_is_still_answered() -> None:
    """That is the moment from which a recovery counts: not the one at which all that had piled up is answered."""
    asked, go = 0, asyncio.Event()

    async def answer_when_told(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while True:
            await reader.readuntil(b"\r\n\r\n")
            asked += 1
            await go.wait()
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async def nothing() -> None:
        pass

    told: list[float] = []

    async def then(last_due: float) -> None:
        told.append(last_due)
        assert asked == 2, "as many as there are connections"
        go.set()

    async with listening(answer_when_told) as port:
        driver, start = Driver(port, limit=2), perf_counter()
        found = await driver.at_rate(
            [Ask("GET /", "GET", "/", b"")], per_second=100, seconds=0.3, each_second=nothing, no_longer=then
        )
        await driver.close()
    assert [one.status for one in found] == [200, 200]
    assert asked == 2
    assert max(one.at for one in found) < told[0] <= start + 0.3


async def test_a_recovery_lasts_until_an_estimate_is_answered_in_time() -> None:
    answers = [b"503 Service Unavailable", b"slow", b"200 OK", b"500 nobody asks again"]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            status = answers.pop(0)
            if status == b"slow":
                await asyncio.sleep(2 * P99_SECONDS)
                status = b"200 OK"
            writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\n\r\n")

    async with listening(answer) as port:
        seconds = await run.recovered(port, mixed(100), since=perf_counter() - 1)
    assert 1 + 2 * P99_SECONDS <= seconds < run.RECOVERY_PATIENCE_SECONDS
    assert len(answers) == 1


def test_memory_is_that_of_the_processes_it_has_started_as_well() -> None:
    code = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = bytearray(64 << 20); input()'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        try:
            wait_for(lambda: resident_bytes(process.pid) > 64 * 2**20, "its child is counted")
        finally:
            process.kill()
    assert resident_bytes(process.pid) == 0


async def test_a_connection_that_breaks_is_a_request_that_was_not_answered() -> None:
    async def leave(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")

    async with listening(leave) as port:
        driver = Driver(port)
        one = await driver.once(Ask("GET /", "GET", "/", b""))
        await driver.close()
    assert one.status == LOST
