"""Which faults happen, in which order and when: the same for the same seed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from random import Random

FIRST, LAST, LAST_OF_FEW, MANY = 0.04, 0.9, 0.6, 50
"""Between which shares of the jobs the faults happen: there is work before the first, and after the last."""


class Kind(StrEnum):
    """What can happen."""

    KILL_WORKER = "kill_worker"
    KILL_PROBE = "kill_probe"
    KILL_SERVER = "kill_server"
    KILL_IN_REQUEST = "kill_in_request"
    FREEZE_WORKER = "freeze_worker"
    DRAIN_WORKER = "drain_worker"
    LOSE_RESULT = "lose_result"
    LOSE_LEASE = "lose_lease"
    FILL_SPOOL = "fill_spool"
    FILL_DATABASE = "fill_database"
    RESTART_DATABASE = "restart_database"


PER_HUNDRED: Mapping[Kind, float] = {
    Kind.KILL_WORKER: 6,
    Kind.KILL_PROBE: 6,
    Kind.KILL_SERVER: 2,
    Kind.KILL_IN_REQUEST: 3,
    Kind.FREEZE_WORKER: 3,
    Kind.DRAIN_WORKER: 1.5,
    Kind.LOSE_RESULT: 5,
    Kind.LOSE_LEASE: 3,
    Kind.FILL_SPOOL: 2,
    Kind.FILL_DATABASE: 1.5,
    Kind.RESTART_DATABASE: 2,
}
"""Faults of each kind for a hundred jobs, at least one of each."""
OF_SQLITE = frozenset({Kind.FILL_DATABASE})
"""Where the server itself writes the file. On PostgreSQL that disk is another server's."""
OF_POSTGRESQL = frozenset({Kind.RESTART_DATABASE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that happens.

    Attributes:
        after: once so many points were measured. worker: to which, by number. dice: in [0, 1), for what the kind
            leaves open: how long, which process, how hard.
    """

    kind: Kind
    after: int
    worker: int
    dice: float


def kinds_on(*, sqlite: bool) -> frozenset[Kind]:
    """What can happen on a database."""
    return frozenset(Kind) - (OF_POSTGRESQL if sqlite else OF_SQLITE)


def faults_of(kinds_wanted: Collection[Kind], *, seed: int, jobs: int, workers: int) -> tuple[Fault, ...]:
    """The faults of a run, in their order."""
    dice = Random(seed)
    kinds = [
        kind
        for kind, rate in PER_HUNDRED.items()
        if kind in kinds_wanted
        for _ in range(max(1, round(rate * jobs / 100)))
    ]
    dice.shuffle(kinds)
    # Of a few jobs the last ones have begun when most are done: nothing could happen to them any more.
    last = LAST if jobs >= MANY else LAST_OF_FEW
    between = (last - FIRST) * jobs / max(1, len(kinds) - 1)
    return tuple(
        Fault(
            kind=kind,
            after=round(FIRST * jobs + number * between),
            worker=dice.randrange(workers),
            dice=dice.random(),
        )
        for number, kind in enumerate(kinds)
    )
