"""When the driver leaves by itself, with a cluster that is told what to answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from probes.fleet import driver, tasks
from probes.fleet.driver import Fleet, _Driver, _Life
from probes.fleet.errors import ClusterAway
from probes.fleet.life import LifeOrder
from probes.worker.loop import Summary
from probes.worker.stopping import Stopping

ray = pytest.importorskip("ray")
NODE = {"NodeID": "a" * 56, "Alive": True, "Resources": {"CPU": 1.0}}


class Waiting:
    """The events of a life that waits for its core, until it is over or cancelled."""

    is_over = cancelled = False

    def __next__(self) -> Any:
        if self.cancelled:
            raise ray.exceptions.TaskCancelledError
        raise StopIteration


class Cluster:
    """What the driver uses of Ray, and its clock, which goes on where the driver waits. One core.

    Args:
        head: where something listens, or not. taken_for_seconds: by somebody else; a life that begins has no job.
    """

    exceptions = ray.exceptions

    def __init__(self, head: str, taken_for_seconds: float = 1e9) -> None:
        self.head, self.now, self.lives = head, 1000.0, list[Waiting]()
        self._free_at = self.now + taken_for_seconds

    def monotonic(self) -> float:
        return self.now

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(gcs_address=self.head)

    def nodes(self) -> list[dict[str, Any]]:
        return [NODE]

    def options(self, **_: Any) -> Cluster:
        return self

    def remote(self, *_: Any) -> Waiting:
        self.lives.append(Waiting())
        return self.lives[-1]

    def wait(self, lives: list[Waiting], *, timeout: float, **_: Any) -> tuple[list[Waiting], list[Waiting]]:
        self.now += timeout
        for life in lives:
            life.is_over = self.now >= self._free_at
        return [life for life in lives if life.is_over or life.cancelled], []

    def get(self, event: Any) -> Any:
        raise AssertionError(f"a life that has not begun tells nothing: {event}")

    def cancel(self, life: Waiting, *, force: bool) -> None:
        assert not force
        assert not life.cancelled
        life.cancelled = True


@pytest.fixture
def head() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture
def nobody() -> str:
    """An address on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return f"127.0.0.1:{listening.getsockname()[1]}"


def started(monkeypatch: pytest.MonkeyPatch, cluster: Cluster, **options: Any) -> _Driver:
    monkeypatch.setattr(tasks, "control_of", lambda *_, **__: None)
    monkeypatch.setattr(tasks, "task_of", lambda _: cluster)
    monkeypatch.setattr(driver, "time", cluster)
    fleet = Fleet(address="auto", life=LifeOrder(server="http://host", cpu=True), **options)
    return _Driver(ray=cluster, fleet=fleet, stopping=Stopping(), say=lambda _: None)


def test_what_waits_is_what_each_workers_last_life_has_left(monkeypatch: pytest.MonkeyPatch, head: str) -> None:
    one = started(monkeypatch, cluster := Cluster(head))
    one._look_at_nodes(cluster.now)
    (slot,) = one._slots.due(cluster.now)

    def ended(worker: str, waiting: int) -> None:
        summary = Summary(leased=1, waiting=waiting).to_json()
        life = _Life(slot=slot, events=None, asked_at=cluster.now, worker=worker)
        one._take(life, {"event": "ended", "summary": summary})

    assert one.report.to_json()["waiting"] == 0
    ended("a", 2)
    ended("b", 1)
    assert one.report.to_json()["waiting"] == 3
    ended("a", 0)  # which has sent what was there
    assert one.report.to_json()["waiting"] == 1
    unable = {"event": "unable", "code": "spool-error", "message": "full", "waiting": 4}
    one._take(_Life(slot=slot, events=None, asked_at=cluster.now, began=True, worker="b"), unable)
    one._take(_Life(slot=slot, events=None, asked_at=cluster.now), {**unable, "waiting": None})
    report = one.report.to_json()
    assert (report["waiting"], report["leased"], report["unable"]) == (4, 3, 2)


def test_a_fleet_that_is_to_leave_does_not_wait_for_gpus_that_others_have(
    monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    cluster = Cluster(head)
    report = started(monkeypatch, cluster, idle_exit_seconds=90.0).run()
    assert [life.cancelled for life in cluster.lives] == [True]
    assert cluster.now == pytest.approx(1090.0, abs=1.0)
    assert (report.lives, report.lives_lost, report.unable) == (0, 0, 0)


def test_a_life_that_is_only_slow_to_start_is_waited_for(monkeypatch: pytest.MonkeyPatch, head: str) -> None:
    cluster = Cluster(head, taken_for_seconds=driver.WAITED_SECONDS - 5)
    started(monkeypatch, cluster, idle_exit_seconds=1.0).run()
    assert [(life.is_over, life.cancelled) for life in cluster.lives] == [(True, False)]


def test_without_its_head_the_cluster_is_away_before_ray_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, nobody: str, head: str
) -> None:
    one = started(monkeypatch, cluster := Cluster(head))
    one._look_at_nodes(cluster.now)
    (slot,) = one._slots.due(cluster.now)
    one._begin(slot, cluster.now)
    cluster.head = nobody
    with pytest.raises(ClusterAway, match="the head of the Ray cluster is gone"):
        one.run()
    assert driver.HEAD_SECONDS <= cluster.now - 1000.0 < 60.0


def test_a_head_that_starts_again_in_time_is_one_that_stayed(
    monkeypatch: pytest.MonkeyPatch, nobody: str, head: str
) -> None:
    one = started(monkeypatch, cluster := Cluster(nobody))
    assert not one._sees_the_head(1000.0 + driver.HEAD_SECONDS - 1)
    cluster.head = head
    assert one._sees_the_head(1000.0 + driver.HEAD_SECONDS + 1)
    cluster.head = nobody
    assert not one._sees_the_head(1000.0 + driver.HEAD_SECONDS + 2)
