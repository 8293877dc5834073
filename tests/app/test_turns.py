"""Work that takes a thread: so much at once, so much that waits, and nobody jumps the queue by leaving it."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

import pytest

from app.admission import Overloaded
from app.logs import make_logger
from app.metrics import Metrics
from app.turns import Turns
from estimator.errors import CtxplanError


@dataclass
class Work:
    """Work that ends when it may, and how much of it there was."""

    may_end: threading.Event = field(default_factory=threading.Event)
    begun: int = 0
    most: int = 0
    now: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, answer: str) -> str:
        with self.lock:
            self.begun += 1
            self.now += 1
            self.most = max(self.most, self.now)
        assert self.may_end.wait(30)
        with self.lock:
            self.now -= 1
        return answer


@pytest.fixture
def work() -> Iterator[Work]:
    one = Work()
    yield one
    one.may_end.set()


def turns(
    metrics: Metrics | None = None, *, at_once: int = 2, max_waiting: int = 100, max_seconds: float = inf
) -> Turns:
    log, metrics = make_logger("warning"), metrics or Metrics()
    return Turns("lookups", at_once=at_once, max_waiting=max_waiting, max_seconds=max_seconds, metrics=metrics, log=log)


async def until(seen: int, work: Work) -> None:
    while work.begun < seen:
        await asyncio.sleep(0.005)


async def test_who_leaves_frees_no_turn_before_its_thread_has_ended(work: Work) -> None:
    lookups = turns()
    for _ in range(10):
        asked = [asyncio.create_task(lookups.in_thread(work, "a")) for _ in range(4)]
        await until(2, work)
        for one in asked:
            one.cancel()
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    assert (work.begun, work.most) == (2, 2)
    work.may_end.set()
    assert await lookups.in_thread(work, "the next one's") == "the next one's"


async def test_who_leaves_while_it_waits_is_never_begun(work: Work) -> None:
    lookups = turns(at_once=1)
    first = asyncio.create_task(lookups.in_thread(work, "first"))
    await until(1, work)
    second = asyncio.create_task(lookups.in_thread(work, "second"))
    await asyncio.sleep(0.01)
    second.cancel()
    work.may_end.set()
    assert await first == "first"
    with pytest.raises(asyncio.CancelledError):
        await second
    assert work.begun == 1


async def test_too_many_that_wait_are_refused_and_counted(work: Work) -> None:
    metrics = Metrics()
    lookups = turns(metrics, at_once=1, max_waiting=1)
    asked = [asyncio.create_task(lookups.in_thread(work, "a"))]
    await until(1, work)
    asked.append(asyncio.create_task(lookups.in_thread(work, "b")))
    await asyncio.sleep(0.01)
    with pytest.raises(Overloaded):
        await lookups.in_thread(work, "c")
    assert 'ctxplan_http_shed_total{why="lookups"} 1.0' in metrics.text().decode()
    work.may_end.set()
    assert await asyncio.gather(*asked) == ["a", "b"]


async def test_who_has_waited_for_too_long_is_refused_and_leaves_its_place(work: Work) -> None:
    metrics = Metrics()
    slow = turns(metrics, at_once=1, max_waiting=1, max_seconds=0.05)
    first = asyncio.create_task(slow.in_thread(work, "first"))
    await until(1, work)
    for _ in range(2):
        with pytest.raises(Overloaded):
            await slow.in_thread(work, "too late")
    assert 'ctxplan_http_shed_total{why="lookups"} 2.0' in metrics.text().decode()
    work.may_end.set()
    assert await first == "first"
    assert await slow.in_thread(work, "second") == "second"
    assert work.begun == 2


async def test_of_what_nobody_waits_for_a_failure_is_a_line_of_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    lookups, go = turns(), threading.Event()

    def fail(error: Exception) -> None:
        assert go.wait(30)
        raise error

    asked = [asyncio.create_task(lookups.in_thread(fail, one)) for one in (ValueError("odd"), CtxplanError("known"))]
    await asyncio.sleep(0.02)
    for one in asked:
        one.cancel()
    go.set()
    assert {type(one) for one in await asyncio.gather(*asked, return_exceptions=True)} == {asyncio.CancelledError}
    (line,) = map(json.loads, capfd.readouterr().err.splitlines())
    assert (line["event"], line["what"]) == ("work that nobody waits for any more failed", "lookups")
    assert "ValueError: odd" in line["exception"]


async def test_a_server_that_stops_is_not_kept_by_a_thread(work: Work) -> None:
    asked = asyncio.create_task(turns().in_thread(work, "a"))
    await until(1, work)
    for _ in range(2):
        asked.cancel()
        await asyncio.sleep(0.01)
    assert asked.cancelled()
