"""A job's history, told again from its start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from app.queue.history import JobRow
from app.queue.states import STEPS, EventKind, State

_KINDS = frozenset(EventKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that must not be. ``seq``: of the event that shows it; None where the tables do."""

    job_id: int | None
    what: str
    seq: int | None = None


@dataclass(slots=True, kw_only=True)
class Folded:
    """What a history makes of its job.

    Attributes:
        workers: who had each lease, by epoch. accepted, late: ids and epochs of measurements and late results.
        measurement: whether fits read it, ``accepted`` or ``quarantined``.
    """

    state: State | None = None
    seq: int = 0
    epoch: int = 0
    attempts: int = 0
    losses: int = 0
    workers: dict[int, str | None] = field(default_factory=dict)
    accepted: set[tuple[int | None, int]] = field(default_factory=set)
    late: set[tuple[int, int]] = field(default_factory=set)
    measurement: str | None = None


def fold(job_id: int, events: Sequence[JobRow]) -> tuple[Folded, list[Finding]]:
    """What the events, by number, make of the job, and what is wrong with them."""
    folded, findings = Folded(), []
    for event in events:
        faults = [*_step(folded, event)]
        findings += [Finding(job_id=job_id, seq=event.seq, what=what) for what in faults]
    if not events:
        findings.append(Finding(job_id=job_id, what="has no history"))
    return folded, findings


def _step(folded: Folded, event: JobRow) -> list[str]:
    faults: list[str] = []
    if event.seq != folded.seq + 1:
        faults.append(f"follows number {folded.seq}")
    folded.seq = event.seq
    if event.kind not in _KINDS:
        return [*faults, f"{event.kind} is no kind of event"]
    kind = EventKind(event.kind)
    if kind is EventKind.LATE_RESULT:
        return faults + _late(folded, event)
    if kind is EventKind.LEASED:
        if event.epoch != folded.epoch + 1:
            faults.append(f"epoch {event.epoch} follows {folded.epoch}")
        folded.epoch, folded.workers[event.epoch] = event.epoch, event.worker
    elif event.epoch != folded.epoch:
        faults.append(f"{kind} in epoch {event.epoch}, while that is {folded.epoch}")
    holder = folded.workers.get(folded.epoch) if folded.state is State.LEASED or kind is EventKind.LEASED else None
    if event.worker != holder:
        faults.append(f"{kind} by {event.worker}, while {holder} had the job")
    return faults + _move(folded, kind, event)


def _move(folded: Folded, kind: EventKind, event: JobRow) -> list[str]:
    before = folded.state
    if kind is EventKind.SUBMITTED:
        folded.state = State.QUEUED
        return [] if before is None else [f"submitted while {before}"]
    step = STEPS[kind]
    folded.state = step.after
    faults = [] if before in step.before else [f"{kind} while {before}"]
    if kind is EventKind.RELEASED:
        return faults + _release(folded, event)
    _count(folded, kind, event)
    return faults


def _count(folded: Folded, kind: EventKind, event: JobRow) -> None:
    if kind is EventKind.LEASED:
        folded.attempts += 1
    elif kind is EventKind.GIVEN_BACK:
        folded.attempts -= 1
    elif kind is EventKind.RETRIED:
        folded.attempts = folded.losses = 0
    elif kind is EventKind.LEASE_LOST or (kind is EventKind.FAILED and event.detail.get("lost")):
        folded.losses += 1
    elif kind is EventKind.SUCCEEDED:
        folded.accepted.add((event.detail.get("measurement"), event.epoch))
        folded.measurement = event.detail.get("state")


def _release(folded: Folded, event: JobRow) -> list[str]:
    before, folded.measurement = folded.measurement, "accepted"
    if (event.detail.get("measurement"), event.epoch) not in folded.accepted:
        return [f"measurement {event.detail.get('measurement')} is released, which is not its own"]
    return [] if before == "quarantined" else [f"its measurement is released while {before}"]


def _late(folded: Folded, event: JobRow) -> list[str]:
    if event.epoch not in folded.workers:
        return [f"a late result of epoch {event.epoch}, which was never leased"]
    if event.detail.get("late_result") is not None:
        folded.late.add((event.detail["late_result"], event.epoch))
    return [] if event.worker == folded.workers[event.epoch] else [f"a late result by {event.worker}"]
