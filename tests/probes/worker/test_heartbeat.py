"""The thread that holds on to a lease, with a service that takes its time."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

from probes.worker.client import Lease, Renewed
from probes.worker.facts import find_facts
from probes.worker.heartbeat import Heartbeat
from probes.worker.patience import Patience
from probes.worker.stopping import Stopping
from tests.probes.common import wait_for


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
