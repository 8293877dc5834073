"""The worker's life: lease a point, measure it, send what it gave, until it is told to stop or has done what it was
asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from estimator.errors import CtxplanError
from probes.errors import ProbeUnavailable
from probes.points import parse_point
from probes.worker.client import Lease, Server
from probes.worker.errors import Away, LeaseLost, Refused, SpoolError, WorkerError
from probes.worker.facts import Facts, unsuitable
from probes.worker.heartbeat import Heartbeat
from probes.worker.patience import Patience
from probes.worker.runner import HUNG_SECONDS, Outcome, Runner, Setup
from probes.worker.sending import Fate, Sender
from probes.worker.spool import Failure, Spool
from probes.worker.stopping import Stopping

TICK_SECONDS = 0.2
IDLE_SECONDS = 10.0
"""Between two questions where there was nothing, unless the service says otherwise."""
WORKER_DIED = Failure(why="worker-died", message="the worker ended while it measured")
VOID = ("neighbour", "wrong_gpu")
"""Outcomes that say nothing of the point: another attempt may."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Until:
    """When a worker leaves by itself.

    Attributes:
        max_jobs: after so many leases; None: never. idle_exit_seconds: after so long without one; 0: with the first
            answer that there is none.
    """

    max_jobs: int | None = None
    idle_exit_seconds: float | None = None


@dataclass(slots=True, kw_only=True)
class Summary:
    """What a worker did: leases, and what became of them. Results of an earlier life that are sent count as well.

    Attributes:
        waiting: results that the service has not answered for, in the spool. unreachable: it left without having
            reached the service when it last tried.
    """

    leased: int = 0
    accepted: int = 0
    duplicate: int = 0
    late: int = 0
    refused: int = 0
    failed: int = 0
    cancelled: int = 0
    lost: int = 0
    given_back: int = 0
    waiting: int = 0
    unreachable: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(slots=True, kw_only=True)
class Worker:
    """One worker on one machine; `run` is its life.

    Args:
        say: for a line that a person reads. patience: between questions to a service that is away.
    """

    server: Server
    facts: Facts
    spool: Spool
    setup: Setup = field(default_factory=Setup)
    until: Until = field(default_factory=Until)
    stopping: Stopping = field(default_factory=Stopping)
    say: Callable[[str], None] = lambda _: None
    new_patience: Callable[[], Patience] = Patience
    summary: Summary = field(default_factory=Summary)
    _sender: Sender = field(init=False)
    _heartbeat: Heartbeat = field(init=False)
    _idle_since: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._sender = Sender(
            server=self.server,
            spool=self.spool,
            stopping=self.stopping,
            patience=self.new_patience(),
            on_fate=self._count,
            say=self.say,
        )
        self._heartbeat = Heartbeat(self.server, self.facts, self.stopping, say=self.say, patience=self.new_patience())

    def run(self) -> Summary:
        """Work until it is time to leave.

        Raises:
            SpoolError, NotLetIn, NotTheService: it cannot go on. WorkerError, ProbeUnavailable: nothing can be measured
            on this machine; the lease was given back.
        """
        try:
            with self._heartbeat:
                self._report_interrupted()
                self._sender.send_all()
                self._work()
        finally:
            self.summary.waiting = len(self.spool.results())
        return self.summary

    def _work(self) -> None:
        patience = self.new_patience()
        self._idle_since = time.monotonic()
        while not self.stopping.draining and not self._has_done_enough():
            try:
                answer = self.server.lease(self.facts)
            except Away as error:
                if not self.summary.unreachable:
                    self.say(f"no job: {error}")
                self.summary.unreachable = True
                wait = patience.next_wait_seconds(error.retry_after_seconds)
            else:
                self.summary.unreachable = False
                patience.reset()
                if isinstance(answer, Lease):
                    self._do(answer)
                    self._idle_since = time.monotonic()
                    continue
                wait = patience.spread(IDLE_SECONDS if answer is None else max(TICK_SECONDS, answer))
            left = self._idle_seconds_left()
            if left <= 0:
                return
            self.stopping.wait_for_drain(min(wait, left))

    def _has_done_enough(self) -> bool:
        return self.until.max_jobs is not None and self.summary.leased >= self.until.max_jobs

    def _idle_seconds_left(self) -> float:
        if self.until.idle_exit_seconds is None:
            return float("inf")
        return self._idle_since + self.until.idle_exit_seconds - time.monotonic()

    def _report_interrupted(self) -> None:
        """What an earlier life of this worker died over is a failed attempt: the next may begin at once. So is what had
        failed before, and was not answered for."""
        for one in self.spool.interrupted():
            if one.failure is None:
                self.say(f"job {one.lease.job}: was being measured when the worker ended")
            self._sender.fail(one.lease, one.failure or WORKER_DIED)

    def _do(self, lease: Lease) -> None:
        """Work on one lease until nothing is owed for it, or it waits in the spool."""
        self.summary.leased += 1
        self.say(f"job {lease.job}: leased, number {lease.epoch}")
        self._heartbeat.hold(lease)
        try:
            self._begin(lease)
            refusal = self._refusal(lease)
            if refusal is not None:
                self._fail(lease, *refusal)
                return
            outcome = self._measured(lease)
            if outcome is None:
                self._abandon(lease)
            elif outcome.document is not None:
                self._keep(lease, outcome.document)
            else:
                self._no_result(lease, outcome)
        finally:
            self._heartbeat.let_go()

    def _begin(self, lease: Lease) -> None:
        try:
            self.spool.begin(lease)
        except SpoolError:
            self._give_back(lease)
            raise

    def _refusal(self, lease: Lease) -> tuple[str, str] | None:
        """Why the point is not measured here: a code and words."""
        try:
            point = parse_point(lease.point)
            if point.digest != lease.digest:
                return "unreadable-point", "this version of ctxplan reads another point from it: the digest differs"
            reason = unsuitable(point, self.facts)
        except CtxplanError as error:
            return error.code, str(error)
        return None if reason is None else ("unsuitable", reason)

    def _measured(self, lease: Lease) -> Outcome | None:
        """What the point gave; None where it was abandoned, and the probe with all that it started is gone."""
        end = time.monotonic() + lease.time_limit_seconds + HUNG_SECONDS
        try:
            runner = Runner(lease.point, self.setup, time_limit_seconds=lease.time_limit_seconds)
        except WorkerError:
            self._give_back(lease)
            raise
        with runner:
            while True:
                outcome = runner.wait(TICK_SECONDS, lambda phase: self.say(f"job {lease.job}: {phase}"))
                # In this order: what is measured is sent, also where the lease is lost or the worker told to stop.
                if outcome is not None:
                    return outcome
                if self.stopping.now or self._heartbeat.told is not None:
                    return None
                if time.monotonic() >= end:
                    return Outcome(why="probe-hung", message=f"no end after {lease.time_limit_seconds:g} s and more")

    def _abandon(self, lease: Lease) -> None:
        told = self._heartbeat.told
        if told is None:
            self._give_back(lease)
            return
        self.spool.forget(lease)
        self.say(f"job {lease.job}: {told}; its probe is stopped")
        if told == "cancelled":
            self.summary.cancelled += 1
        else:
            self.summary.lost += 1

    def _keep(self, lease: Lease, document: Mapping[str, Any]) -> None:
        outcome = document["outcome"]
        detail = document.get("detail")
        if outcome in VOID:
            self._fail(lease, str(outcome), str(detail))
            return
        if document.get("killed"):
            self._fail(lease, "probe-killed", str(detail))
            return
        self.say(f"job {lease.job}: measured, {outcome}")
        try:
            self.spool.keep(lease, document)
        except SpoolError:
            self._send_unspooled(lease, document)
            raise
        self._sender.send_all()

    def _send_unspooled(self, lease: Lease, document: Mapping[str, Any]) -> None:
        """The disk is full: the result has this one chance, and another worker the next."""
        try:
            self._count(self.server.send_result(lease, document).how)
        except (Away, LeaseLost, Refused) as error:
            self.say(f"job {lease.job}: the result is lost: {error}")
            self._give_back(lease)
        else:
            self.spool.forget(lease)

    def _no_result(self, lease: Lease, outcome: Outcome) -> None:
        if outcome.unavailable:
            self._give_back(lease)
            raise ProbeUnavailable(outcome.message)
        self._fail(lease, outcome.why, outcome.message)

    def _fail(self, lease: Lease, why: str, message: str) -> None:
        self.say(f"job {lease.job}: no result: {why}: {message}")
        self._sender.fail(lease, Failure(why=why, message=message))
        self.summary.failed += 1

    def _give_back(self, lease: Lease) -> None:
        self._sender.give_back(lease)
        self.spool.forget(lease)
        self.summary.given_back += 1

    def _count(self, fate: Fate) -> None:
        setattr(self.summary, fate, getattr(self.summary, fate) + 1)
