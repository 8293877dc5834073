"""Keeps as many workers' lives going as a Ray cluster has GPUs.

A task is one life (`probes.fleet.life`), on a whole GPU, pinned to its node, and never retried by Ray: how often a
point is tried is for the service to say, by its leases. A node that is gone takes its lives with it; their leases run
out, and the service gives the points to others. Ray is imported when a fleet starts.
"""

from __future__ import annotations

import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from typing import Any

from probes.fleet.errors import ClusterAway, FleetError, FleetOptionError, ToolMissing
from probes.fleet.life import LifeOrder
from probes.fleet.slots import How, Slot, Slots
from probes.worker.stopping import Stopping, on_signals

TICK_SECONDS = 0.5
NODES_SECONDS = 2.0
MOST_SHOWN = 300
CONNECT_SECONDS = 10.0
CONTROL_SECONDS = 120.0
HEAD_SECONDS = 30.0
"""Without the head. Ray itself ends this process after 60, with an exit code that means something else here."""
WAITED_SECONDS = 60.0
"""A life that has not begun by then waits for a GPU that others have, and is not merely slow to start."""
FATAL = ("not-let-in", "not-the-service")
"""No node will do better."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Which lives, and where.

    Attributes:
        address: of the cluster, as ``ray.init`` takes it. accelerator: Ray's name of the GPUs; None: any.
        most: lives at once; None: as many as fit.
    """

    address: str
    life: LifeOrder
    accelerator: str | None = None
    most: int | None = None
    max_jobs: int | None = None
    idle_exit_seconds: float | None = None


@dataclass(slots=True, kw_only=True)
class Report:
    """What the fleet did: what its lives did together (`probes.worker.loop.Summary`), and how many were lost.

    Attributes:
        lives: that began. lost: gone with their node or process. unable: that could not work. waiting: results in the
            workers' spools, as each worker's last life that ended left its own; a life that is lost tells nothing.
            unreachable: the last life could not reach the service.
    """

    lives: int = 0
    lives_lost: int = 0
    unable: int = 0
    most_at_once: int = 0
    unreachable: bool = False
    summed: Counter[str] = field(default_factory=Counter)
    waiting_at: dict[str, int] = field(default_factory=dict)
    last_fault: str | None = None

    @property
    def waiting(self) -> int:
        return sum(self.waiting_at.values())

    def to_json(self) -> dict[str, Any]:
        return {
            **{name: self.summed[name] for name in SUMMED},
            "waiting": self.waiting,
            "lives": self.lives,
            "lives_lost": self.lives_lost,
            "unable": self.unable,
            "most_at_once": self.most_at_once,
            "unreachable": self.unreachable,
        }


SUMMED = (
    "leased", "accepted", "duplicate", "late", "refused", "failed", "cancelled", "lost", "given_back",
)  # fmt: skip


def run(fleet: Fleet, *, say: Callable[[str], None]) -> Report:
    """Work until there is nothing more to do, or until SIGTERM or SIGINT; to be called in the main thread.

    Once asked, the fleet drains: lives finish their points. Asked twice, they give them back.

    Raises:
        ToolMissing: Ray is not installed. ClusterAway: the cluster cannot be reached. FleetError: the service does not
            let the fleet in.
    """
    try:
        import ray
    except ImportError:
        raise ToolMissing("Ray is not installed here", allowed="pip install 'ctxplan[ray]'") from None
    _check_reachable(fleet.address)
    # What Ray has to say of its nodes goes to standard output, which is for JSON alone.
    with redirect_stdout(sys.stderr):
        _connect(ray, fleet.address)
        try:
            stopping = Stopping()
            with on_signals(stopping):
                return _Driver(ray=ray, fleet=fleet, stopping=stopping, say=say).run()
        finally:
            ray.shutdown()


def capacity(nodes: Sequence[Mapping[str, Any]], *, cpu: bool, accelerator: str | None) -> dict[str, int]:
    """How many lives each node holds that is alive: whole GPUs, with a core for each; without GPUs, cores.

    Args:
        nodes: as ``ray.nodes()`` has them.
    """
    found = {}
    for node in nodes:
        has = node.get("Resources", {})
        fits = cpu or accelerator is None or has.get(f"accelerator_type:{accelerator}")
        most = int(has.get("CPU", 0)) if cpu else min(int(has.get("GPU", 0)), int(has.get("CPU", 0)))
        if node.get("Alive") and fits and most:
            found[str(node["NodeID"])] = most
    return found


def _check_reachable(address: str) -> None:
    """Raise FleetOptionError or ClusterAway; Ray itself tries for minutes, and hears no signal meanwhile."""
    if address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if "://" in address or not host or not colon or not port.isdigit():
        allowed = "HOST:PORT of the head, as ray start prints it, or auto; this command runs on a node of the cluster"
        raise FleetOptionError("is no address of a cluster", key="address", allowed=allowed)
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except (OSError, OverflowError, UnicodeError) as error:
        raise ClusterAway(f"no Ray cluster at {address}: {error}") from None


def _connect(ray: Any, address: str) -> None:
    try:
        # Lives tell the driver what a person is to see.
        ray.init(address=address, log_to_driver=False, configure_logging=False, namespace="ctxplan")
    except Exception as error:  # each way of not being there raises its own: ConnectionError, ValueError, RuntimeError
        raise ClusterAway(f"no Ray cluster at {address}: {str(error).strip()[:500]}") from None


@dataclass(slots=True, kw_only=True, eq=False)
class _Life:
    """A life that is going on, or waits for its GPU."""

    slot: Slot
    events: Any
    asked_at: float
    began: bool = False
    dropped: bool = False
    how: How = "lost"
    worker: str = ""


class _Driver:
    def __init__(self, *, ray: Any, fleet: Fleet, stopping: Stopping, say: Callable[[str], None]) -> None:
        from probes.fleet.tasks import control_of, task_of

        self._ray, self._fleet, self._stopping, self._say = ray, fleet, stopping, say
        try:
            self._control = control_of(ray, timeout_seconds=CONTROL_SECONDS)
        except ray.exceptions.RayError as error:
            raise ClusterAway(f"nothing can be started on this node of the cluster: {error}") from None
        self._task = task_of(ray)
        self._told: list[Any] = []
        self._slots = Slots(
            since=time.monotonic(),
            max_jobs=fleet.max_jobs,
            idle_exit_seconds=fleet.idle_exit_seconds,
            most=fleet.most,
        )
        self._lives: list[_Life] = []
        self._level = 0
        self._fatal: str | None = None
        self._looked_at = float("-inf")
        self._head_seen_at = time.monotonic()
        self._held: dict[str, int] | None = None
        self.report = Report()

    def run(self) -> Report:
        while True:
            now = time.monotonic()
            self._pass_on()
            self._look_at_nodes(now)
            if self._slots.is_winding_down(now):
                # Whoever has the GPUs may have them for days.
                self._drop(lambda life, now=now: now - life.asked_at >= WAITED_SECONDS)  # type: ignore[misc]
            elif not self._is_ending():
                for slot in self._slots.due(now):
                    self._begin(slot, now)
            if not self._lives and (self._is_ending() or self._slots.is_done(now)):
                break
            self._hear()
        if self._fatal is not None:
            raise FleetError(self._fatal)
        return self.report

    def _is_ending(self) -> bool:
        return self._stopping.draining or self._fatal is not None

    def _look_at_nodes(self, now: float) -> None:
        if now - self._looked_at < NODES_SECONDS:
            return
        self._looked_at = now
        if not self._sees_the_head(now):
            return
        try:
            nodes = self._ray.nodes()
        except Exception as error:  # the head's own, which differ between versions of Ray
            raise ClusterAway(f"the Ray cluster is gone: {str(error).strip()[:MOST_SHOWN]}") from None
        alive = {node["NodeID"] for node in nodes if node["Alive"]}
        for life in [life for life in self._lives if life.slot.node not in alive]:
            # A connection to a machine that is gone may stay open for minutes.
            self._lost(life, "its node is gone")
        held = capacity(nodes, cpu=self._fleet.life.cpu, accelerator=self._fleet.accelerator)
        if held != self._held:
            self._say(f"{sum(held.values())} workers fit, on {len(held)} nodes" if held else self._nothing())
        self._held = held
        self._slots.refresh(held)

    def _sees_the_head(self, now: float) -> bool:
        """Raises ClusterAway after `HEAD_SECONDS` without it; a head that starts again in time is one that stayed."""
        host, _, port = self._ray.get_runtime_context().gcs_address.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=NODES_SECONDS).close()
        except OSError as error:
            if now - self._head_seen_at >= HEAD_SECONDS:
                raise ClusterAway(f"the head of the Ray cluster is gone: {error}") from None
            return False
        self._head_seen_at = now
        return True

    def _nothing(self) -> str:
        what = "cores" if self._fleet.life.cpu else f"GPUs{f' {kind}' if (kind := self._fleet.accelerator) else ''}"
        kinds = sorted(
            name.partition(":")[2] for name in self._ray.cluster_resources() if name.startswith("accelerator_type:")
        )
        there = f"; it has {', '.join(kinds)}" if kinds else ""
        return f"the cluster has no {what} now{there}: waiting for a node"

    def _begin(self, slot: Slot, now: float) -> None:
        options: dict[str, Any] = {"num_cpus": 1}
        if not self._fleet.life.cpu:
            options["num_gpus"] = 1
            if self._fleet.accelerator is not None:
                options["accelerator_type"] = self._fleet.accelerator
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(slot.node, soft=False)
        events = self._task.options(**options).remote(self._fleet.life, self._control)
        self._slots.began(slot)
        self._lives.append(_Life(slot=slot, events=events, asked_at=now))

    def _hear(self) -> None:
        """Take what the lives tell, or wait a moment for it."""
        if not self._lives:
            self._stopping.wait_for_drain(TICK_SECONDS)
            return
        by_events = {life.events: life for life in self._lives}
        ready, _ = self._ray.wait(list(by_events), num_returns=1, timeout=TICK_SECONDS, fetch_local=False)
        for events in ready:
            self._hear_one(by_events[events])

    def _hear_one(self, life: _Life) -> None:
        try:
            event = self._ray.get(next(life.events))
        except StopIteration:
            self._over(life)
        except self._ray.exceptions.TaskCancelledError:
            life.how = "idle"
            self._over(life)
        except self._ray.exceptions.RayTaskError as error:
            last = (str(error).strip().splitlines() or ["it said nothing"])[-1]
            self._take(life, {"event": "unable", "code": "internal", "message": last})
            self._over(life)
        except self._ray.exceptions.RayError as error:
            self._lost(life, (str(error).strip().splitlines() or [""])[0])
        else:
            self._take(life, event)

    def _take(self, life: _Life, event: Mapping[str, Any]) -> None:
        kind = event["event"]
        if kind == "began":
            life.began, life.worker = True, event["worker"]
            self.report.lives += 1
            self.report.most_at_once = max(self.report.most_at_once, sum(one.began for one in self._lives))
        elif kind == "leased":
            self._slots.leased(life.slot)
        elif kind == "said":
            self._say(f"{life.worker}: {event['line']}")
        elif kind == "ended":
            summary = event["summary"]
            self.report.summed.update({name: summary[name] for name in SUMMED})
            self.report.waiting_at[life.worker] = summary["waiting"]
            self.report.unreachable = summary["unreachable"]
            life.how = "worked" if life.slot.leased else "idle"
        else:
            if (waiting := event.get("waiting")) is not None:
                self.report.waiting_at[life.worker] = waiting
            self._unable(life, event["code"], event["message"])

    def _unable(self, life: _Life, code: str, message: str) -> None:
        life.how = "unable"
        self.report.unable += 1
        where = life.worker if life.began else f"node {life.slot.node[:8]}"
        self.report.last_fault = f"{where}: {message}"
        self._say(f"{where}: cannot work: {message}")
        if code in FATAL:
            self._fatal = message

    def _lost(self, life: _Life, what: str) -> None:
        life.how = "lost"
        self.report.lives_lost += 1
        what = what[:MOST_SHOWN]
        if life.began:
            held = ", and with it a lease, which runs out" if life.slot.leased else ""
            self._say(f"{life.worker}: lost{held}: {what}")
        else:
            self.report.last_fault = f"node {life.slot.node[:8]}: no life could begin: {what}"
            self._say(self.report.last_fault)
        self._over(life)

    def _over(self, life: _Life) -> None:
        self._lives.remove(life)
        self._slots.ended(life.slot, life.how, time.monotonic())

    def _pass_on(self) -> None:
        """Tell the lives how often this process was asked to end; what waits for a GPU is not waited for."""
        level = 2 if self._stopping.now else int(self._is_ending())
        if level <= self._level:
            return
        self._level = level
        self._say("draining: points are finished, and no other is taken" if level == 1 else "stopping")
        self._told.append(self._control.ask.remote(level))
        self._drop(lambda _: True)

    def _drop(self, which: Callable[[_Life], bool]) -> None:
        """Take back what has not begun."""
        for life in self._lives:
            if not life.began and not life.dropped and which(life):
                life.dropped = True
                self._ray.cancel(life.events, force=False)
