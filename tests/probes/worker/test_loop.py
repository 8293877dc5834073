"""What a worker says to the service, and how long it waits, in this process: the measuring one is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from probes.worker import loop
from probes.worker.client import Lease, Server
from probes.worker.errors import SpoolError
from probes.worker.facts import find_facts
from probes.worker.loop import Summary, Until, Worker
from probes.worker.patience import Patience
from probes.worker.runner import Outcome
from probes.worker.spool import Spool
from probes.worker.stopping import Stopping
from tests.probes.common import point, points
from tests.probes.worker.service import Service, listening


@pytest.fixture
def service() -> Iterator[Service]:
    with listening(Service()) as one:
        yield one


@dataclass(kw_only=True)
class Recorded(Patience):
    """Waits for nothing, and knows what it was asked for; calls something once it was."""

    then: Callable[[], None] = lambda: None
    asked: list[float | None] = field(default_factory=list)

    def next_wait_seconds(self, asked: float | None = None) -> float:
        self.asked.append(asked)
        self.then()
        return 0.0


@contextmanager
def working(service: Service, folder: Path, **more: Any) -> Iterator[Worker]:
    with closing(Server(service.url)) as server:
        facts = find_facts(cpu=True, id="here")
        spool = Spool(folder / "spool", server.url)
        yield Worker(server=server, facts=facts, spool=spool, until=Until(max_jobs=1), **more)


def answering(monkeypatch: pytest.MonkeyPatch, **document: Any) -> None:
    """Have every point measured at once, with this."""

    class Measured:
        def __init__(self, *_: Any, **__: Any) -> None: ...
        def __enter__(self) -> Measured:
            return self

        def __exit__(self, *_: object) -> None: ...
        def wait(self, *_: Any) -> Outcome:
            return Outcome(document=document)

    monkeypatch.setattr(loop, "Runner", Measured)


def run(service: Service, folder: Path, **more: Any) -> Summary:
    with working(service, folder, **more) as worker:
        return worker.run()


@pytest.mark.parametrize("outcome", ["neighbour", "wrong_gpu"])
def test_what_says_nothing_of_the_point_is_sent_as_a_failure_that_another_attempt_may_mend(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, outcome: str
) -> None:
    (job,) = service.add(point())
    answering(monkeypatch, outcome=outcome, detail="process 7 had 3 GiB of it")
    summary = run(service, tmp_path)
    assert (summary.failed, summary.accepted, service.results_sent) == (1, 0, 0)
    (failure,) = job.failures
    assert failure == {"why": outcome, "detail": {"message": "process 7 had 3 GiB of it"}, "retriable": True}
    assert (job.state, list((tmp_path / "spool").rglob("*.json"))) == ("queued", [])


def lines(folder: Path, name: str) -> list[str]:
    return [file.read_text() for file in sorted((folder / "spool" / name).glob("*.json"))]


def told_to_stop() -> Stopping:
    stopping = Stopping()
    stopping.ask()
    stopping.ask()
    return stopping


def test_an_interrupted_attempt_that_the_service_does_not_hear_of_is_reported_by_the_next_life(
    service: Service, tmp_path: Path
) -> None:
    (job,) = service.add(point())
    with working(service, tmp_path) as worker:
        held = worker.server.lease(worker.facts)
        assert isinstance(held, Lease)
        worker.spool.begin(held)
    service.down = True
    run(service, tmp_path, stopping=told_to_stop())
    assert len(lines(tmp_path, "running")) == 1
    service.down = False
    run(service, tmp_path, stopping=told_to_stop())
    assert [failure["why"] for failure in job.failures] == ["worker-died"]
    assert lines(tmp_path, "running") == []


def test_a_failure_that_the_service_does_not_hear_of_is_said_as_it_was_by_the_next_life(
    service: Service, tmp_path: Path
) -> None:
    (job,) = service.add(point(cap_bytes=2**34))  # which the worker refuses, without measuring
    said, stopping = list[str](), Stopping()

    def say(line: str) -> None:
        said.append(line)
        service.down |= "leased" in line

    def stop() -> None:
        stopping.ask()
        stopping.ask()

    summary = run(service, tmp_path, stopping=stopping, say=say, new_patience=lambda: Recorded(then=stop))
    assert summary.failed == 1
    assert "its failure is not answered" in said[-1]
    assert (job.state, job.failures, len(lines(tmp_path, "running"))) == ("leased", [], 1)
    service.down = False
    run(service, tmp_path, stopping=told_to_stop())
    assert [failure["why"] for failure in job.failures] == ["unsuitable"]
    assert "this worker has none" in job.failures[0]["detail"]["message"]
    assert lines(tmp_path, "running") == []


def test_a_failure_is_sent_from_memory_where_the_disk_is_full(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = service.add(point(cap_bytes=2**34))

    def full(*_: Any) -> None:
        raise SpoolError("the spool is not written: No space left on device")

    monkeypatch.setattr(Spool, "fail", full)
    assert run(service, tmp_path).failed == 1
    assert [failure["why"] for failure in job.failures] == ["unsuitable"]


def test_who_was_killed_is_told_by_its_field_and_not_by_what_is_said_of_it(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed, crashed = service.add(*points(16, 32))
    answering(monkeypatch, outcome="crashed", detail="in other words", killed=True)
    assert run(service, tmp_path).failed == 1
    assert [failure["why"] for failure in killed.failures] == ["probe-killed"]
    killed.state = "cancelled"
    answering(monkeypatch, outcome="crashed", detail="killed by SIGKILL", killed=False)
    assert run(service, tmp_path).accepted == 1
    assert (crashed.failures, crashed.state) == ([], "succeeded")


def test_a_service_that_says_when_to_come_back_is_waited_for_as_long(service: Service, tmp_path: Path) -> None:
    service.add(point(cap_bytes=2**34))  # which it refuses, without measuring
    service.down, service.retry_after = True, 7

    def back() -> None:
        service.down = False

    waits: list[Recorded] = []

    def patience() -> Recorded:
        waits.append(Recorded(then=back))
        return waits[-1]

    assert run(service, tmp_path, new_patience=patience).failed == 1
    assert [asked for one in waits for asked in one.asked] == [7.0]


def test_a_disk_that_takes_no_lease_gives_the_point_back_before_anything_is_measured(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = service.add(point())
    answering(monkeypatch, outcome="ok")

    def full(*_: Any) -> None:
        raise SpoolError("the spool is not written: No space left on device")

    monkeypatch.setattr(Spool, "begin", full)
    with working(service, tmp_path) as worker:
        with pytest.raises(SpoolError, match="No space left"):
            worker.run()
        assert worker.summary.given_back == 1
    assert (job.state, job.returned, service.results_sent) == ("queued", 1, 0)


def test_waits_grow_within_bounds_and_begin_anew_after_an_answer() -> None:
    for dice, share in ((0.0, 0.5), (1.0, 1.0)):
        patience = Patience(first_seconds=1, longest_seconds=8, dice=lambda dice=dice: dice)  # type: ignore[misc]
        assert [patience.next_wait_seconds() for _ in range(5)] == [share * n for n in (1, 2, 4, 8, 8)]
        patience.reset()
        assert patience.next_wait_seconds() == share


def test_what_the_service_asks_for_is_the_least_wait_within_the_longest() -> None:
    patience = Patience(first_seconds=1, longest_seconds=8, dice=lambda: 0.0)
    assert patience.next_wait_seconds(5) == 5
    assert patience.next_wait_seconds(3600) == 8
