"""The thread that holds on to a lease, with a service that takes its time, or answers what is no answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import pytest

from probes.worker import heartbeat
from probes.worker.client import Lease, Renewed, Server
from probes.worker.facts import find_facts
from probes.worker.heartbeat import Heartbeat
from probes.worker.patience import Patience
from probes.worker.stopping import Stopping
from tests.probes.common import point, wait_for
from tests.probes.worker.service import Service, listening


@dataclass(kw_only=True)
class Slow:
    """Holds up the renewal of the first job until it may go on, and then wants to be left alone for an hour."""

    go: threading.Event = field(default_factory=threading.Event)
    renewed: list[int] = field(default_factory=list)

    def renew(self, lease: Lease) -> Renewed:
        self.renewed.append(lease.job)
        if lease.job == 1:
            self.go.wait(20)
        return Renewed(expires_in_seconds=3600, renew_after_seconds=3600, cancelled=False)

    def heartbeat(self, *_: Any, **__: Any) -> bool:
        return False


def lease(job: int) -> Lease:
    return Lease(
        job=job,
        epoch=1,
        token="secret",
        point={},
        digest="",
        time_limit_seconds=60,
        expires_in_seconds=60,
        renew_after_seconds=0.2,
    )


def test_a_renewal_that_comes_back_late_does_not_put_off_that_of_the_next_lease() -> None:
    server = Slow()
    beat = Heartbeat(
        server,  # type: ignore[arg-type]
        find_facts(cpu=True, id="here"),
        Stopping(),
        say=lambda _: None,
        patience=Patience(),
    )
    with beat:
        beat.hold(lease(1))
        wait_for(lambda: server.renewed == [1], "the first is being renewed")
        beat.let_go()
        beat.hold(lease(2))
        server.go.set()
        wait_for(lambda: server.renewed == [1, 2], "the second is renewed in its time")
    assert beat.told is None


@dataclass(kw_only=True)
class Faulty(Slow):
    """Has a fault that nobody thought of, the first time that it is asked for something."""

    beats: int = 0

    def renew(self, lease: Lease) -> Renewed:
        self.renewed.append(lease.job)
        if len(self.renewed) == 1:
            raise AttributeError("'str' object has no attribute 'get'")
        return Renewed(expires_in_seconds=3600, renew_after_seconds=0, cancelled=False)

    def heartbeat(self, *_: Any, **__: Any) -> bool:
        self.beats += 1
        if self.beats == 1:
            raise ZeroDivisionError
        return False


def beating(server: Any, say: Callable[[str], None], **more: Any) -> Heartbeat:
    facts, patience = find_facts(cpu=True, id="here"), Patience(first_seconds=0.01, longest_seconds=0.02)
    return Heartbeat(server, facts, Stopping(), say=say, patience=patience, **more)


def test_a_fault_that_nobody_thought_of_is_said_and_the_lease_is_renewed_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heartbeat, "BUSY_SECONDS", 0.05)
    server, said = Faulty(), list[str]()
    with beating(server, said.append) as beat:
        beat.hold(lease(2))
        wait_for(lambda: len(server.renewed) > 1 and server.beats > 1, "it goes on")
    assert any("AttributeError: 'str' object" in line and "test_heartbeat.py" in line for line in said), said
    assert any("ZeroDivisionError" in line for line in said), said
    assert beat.told is None


def test_it_goes_on_where_nobody_hears_what_it_says() -> None:
    def gone(_: str) -> None:
        raise BrokenPipeError

    server = Faulty()
    with beating(server, gone) as beat:
        beat.hold(lease(2))
        wait_for(lambda: len(server.renewed) > 1, "it goes on")


@pytest.mark.parametrize("odd", [{}, {"cancelled": "no"}, [], {"renew_after_seconds": {}, "cancelled": False}], ids=str)
def test_an_answer_that_is_none_is_said_and_the_lease_is_renewed_once_there_is_one(odd: Any) -> None:
    said: list[str] = []
    with listening(Service()) as service, closing(Server(service.url)) as server:
        (job,) = service.add(point())
        held = server.lease(find_facts(cpu=True, id="here"))
        assert isinstance(held, Lease)
        service.odd = {"renewal": odd}
        with beating(server, said.append) as beat:
            beat.hold(held)
            wait_for(lambda: service.asked_oddly > 1, "it asks again")
            assert (beat.told, job.renewals) == (None, 0)
            service.odd = {}
            wait_for(lambda: job.renewals, "the lease is renewed")
    assert len([line for line in said if "the lease is not renewed" in line]) == 1, said
