"""The states of a job, and the events that lead from one to another.

    queued ──leased──▶ leased ──succeeded──▶ succeeded
      ▲ │                │ │
      │ │                │ └──failed (attempts or workers used up)──▶ failed
      │ │                └────attempt_failed, lease_lost, given_back──▶ queued
      │ ├──cancelled (a leased one too)──▶ cancelled
      │ └──expired──▶ expired
      └────retried── failed, cancelled, expired

A job's state is nothing but the fold of its events; `app.queue.audit` holds the tables to that.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    LEASED = "leased"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED})
RETRIABLE = FINAL - {State.SUCCEEDED}


class CampaignState(StrEnum):
    """Where a campaign stands."""

    MEASURING = "measuring"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class EventKind(StrEnum):
    """What can happen to a job."""

    SUBMITTED = "submitted"
    LEASED = "leased"
    SUCCEEDED = "succeeded"
    ATTEMPT_FAILED = "attempt_failed"
    LEASE_LOST = "lease_lost"
    GIVEN_BACK = "given_back"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    RETRIED = "retried"
    LATE_RESULT = "late_result"
    """A result came whose lease was over. The job stays as it is."""
    RELEASED = "released"
    """Its measurement was quarantined, and an operator believes it. The job stays as it is."""


class Step(NamedTuple):
    """From which states an event leads, and to which."""

    before: frozenset[State]
    after: State


_LEASED = frozenset({State.LEASED})
STEPS: Mapping[EventKind, Step] = {
    EventKind.LEASED: Step(frozenset({State.QUEUED}), State.LEASED),
    EventKind.SUCCEEDED: Step(_LEASED, State.SUCCEEDED),
    EventKind.ATTEMPT_FAILED: Step(_LEASED, State.QUEUED),
    EventKind.LEASE_LOST: Step(_LEASED, State.QUEUED),
    EventKind.GIVEN_BACK: Step(_LEASED, State.QUEUED),
    EventKind.FAILED: Step(_LEASED, State.FAILED),
    EventKind.CANCELLED: Step(frozenset({State.QUEUED, State.LEASED}), State.CANCELLED),
    EventKind.EXPIRED: Step(frozenset({State.QUEUED}), State.EXPIRED),
    EventKind.RETRIED: Step(RETRIABLE, State.QUEUED),
    EventKind.RELEASED: Step(frozenset({State.SUCCEEDED}), State.SUCCEEDED),
}
"""All events but the first, after which a job is queued, and a late result, which moves nothing."""
QUEUING = (EventKind.SUBMITTED, *(kind for kind, step in STEPS.items() if step.after is State.QUEUED))
"""After each of these a job waits for a worker."""
