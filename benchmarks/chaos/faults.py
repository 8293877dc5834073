"""How each fault is done."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from benchmarks.chaos.parts import LEASE_SECONDS, Service, Worker
from benchmarks.chaos.plan import Fault, Kind
from benchmarks.chaos.world import World

PAST_THE_LEASE = LEASE_SECONDS + 2.0
WHILE_SECONDS = 0.03
"""In which a result is taken, and answered."""
NOTHING_MORE = 64
"""Bytes that a file may have on a full disk."""


def strike(world: World, fault: Fault) -> str | None:
    """Do it, and say to what; None where there is nothing now that it can happen to."""
    if fault.kind not in OF_WORKERS:
        up = world.up()
        return OF_SERVICE[fault.kind](world, up[int(fault.dice * len(up))], fault) if up else None
    worker = world.target(fault, OF_WORKERS[fault.kind])
    return f"{worker.name}{ON_WORKER[fault.kind](world, worker, fault)}" if worker else None


def _measures(worker: Worker) -> bool:
    return worker.measures


def _is_up(worker: Worker) -> bool:
    return worker.is_up


OF_WORKERS: Mapping[Kind, Callable[[Worker], bool]] = {
    Kind.KILL_WORKER: _measures,
    Kind.KILL_PROBE: _measures,
    Kind.FREEZE_WORKER: _measures,
    Kind.FILL_SPOOL: _measures,
    Kind.DRAIN_WORKER: _is_up,
}
"""To which workers a fault can happen."""


def _kill_worker(world: World, worker: Worker, fault: Fault) -> str:
    """Half of them come back at once and say what they died over; the others when their lease is over."""
    rests = 0.0 if fault.dice < 0.5 else PAST_THE_LEASE
    worker.rests_until = time.monotonic() + rests
    worker.send(signal.SIGKILL)
    return f", back after {rests:.0f} s"


def _kill_probe(world: World, worker: Worker, fault: Fault) -> str:
    below = worker.below()
    if not below:
        return ", which had just ended"
    pid = below[int(fault.dice * len(below))]
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return f", {('what measures', 'its leash', 'the probe')[min(2, below.index(pid))]}"


def _freeze_worker(world: World, worker: Worker, fault: Fault) -> str:
    worker.freeze()
    world.later(PAST_THE_LEASE, worker.thaw)
    return f", {PAST_THE_LEASE:.0f} s"


def _drain_worker(world: World, worker: Worker, fault: Fault) -> str:
    worker.send(signal.SIGTERM)
    return ""


def _fill_spool(world: World, worker: Worker, fault: Fault) -> str:
    worker.limit_files(NOTHING_MORE)
    pid = worker.pid
    world.later(PAST_THE_LEASE, lambda: worker.limit_files(None) if worker.pid == pid else None)
    return ""


ON_WORKER: Mapping[Kind, Callable[[World, Worker, Fault], str]] = {
    Kind.KILL_WORKER: _kill_worker,
    Kind.KILL_PROBE: _kill_probe,
    Kind.FREEZE_WORKER: _freeze_worker,
    Kind.FILL_SPOOL: _fill_spool,
    Kind.DRAIN_WORKER: _drain_worker,
}


def _kill_server(world: World, service: Service, fault: Fault) -> str:
    away = 2 * fault.dice
    service.kill(away_seconds=away)
    return f"{service.log.stem}, away for {away:.1f} s, and while it starts"


def _kill_in_request(world: World, service: Service, fault: Fault) -> str:
    """At some moment of what it does with a result: before it is committed, or after."""
    seconds = fault.dice * WHILE_SECONDS
    by_port = {one.port: one for one in world.services}
    world.proxy.meanwhile("result", lambda port: by_port[port].kill(away_seconds=0), seconds=seconds)
    return f"{seconds * 1000:.0f} ms after the next result comes"


def _lose_result(world: World, service: Service, fault: Fault) -> str:
    world.proxy.lose("result")
    return "the next one"


def _lose_lease(world: World, service: Service, fault: Fault) -> str:
    world.proxy.lose("lease")
    return "the next one"


def _fill_database(world: World, service: Service, fault: Fault) -> str:
    seconds = 1 + 2 * fault.dice
    pid = service.pid
    service.limit_files(NOTHING_MORE)
    world.later(seconds, lambda: service.limit_files(None) if service.pid == pid else None)
    return f"{seconds:.1f} s"


def _restart_database(world: World, service: Service, fault: Fault) -> str:
    assert world.cluster is not None
    mode, away = ("immediate" if fault.dice < 0.5 else "fast"), 2 * fault.dice
    world.cluster.stop(mode)
    world.later(away, world.cluster.start)
    return f"{mode}, away for {away:.1f} s"


OF_SERVICE: Mapping[Kind, Callable[[World, Service, Fault], str]] = {
    Kind.KILL_SERVER: _kill_server,
    Kind.KILL_IN_REQUEST: _kill_in_request,
    Kind.LOSE_RESULT: _lose_result,
    Kind.LOSE_LEASE: _lose_lease,
    Kind.FILL_DATABASE: _fill_database,
    Kind.RESTART_DATABASE: _restart_database,
}
