"""Which GPU of a cluster is asked when, and when the fleet leaves: no Ray in here, and no clock but what it is given.

A slot is room for one worker's life on one node. After a life that had no job its slot rests, so that an empty queue is
not asked all the time; after one that could not work it rests longer, so that a broken node is not a place where the
cluster's time goes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from probes.worker.patience import Patience

How = Literal["worked", "idle", "unable", "lost"]
IDLE_SECONDS, LONGEST_IDLE_SECONDS = 5.0, 20.0
UNABLE_SECONDS, LONGEST_UNABLE_SECONDS = 30.0, 600.0


@dataclass(slots=True, kw_only=True, eq=False)
class Slot:
    """Room for one life. ``leased``: the life that is there has a job."""

    node: str
    number: int
    rests_until: float = 0.0
    is_taken: bool = False
    leased: bool = False
    idle: Patience
    unable: Patience


@dataclass(slots=True, kw_only=True)
class Slots:
    """All slots of the cluster.

    Args:
        max_jobs: leases, of all together; None: as many as there are. idle_exit_seconds: leave after so long in which
            no life had a job; None: never. most: lives at once; None: as many as there are slots. since: now.
    """

    since: float
    max_jobs: int | None = None
    idle_exit_seconds: float | None = None
    most: int | None = None
    dice: Callable[[], float] = field(default=random.random, repr=False)
    jobs: int = 0
    _slots: dict[tuple[str, int], Slot] = field(default_factory=dict)

    @property
    def taken(self) -> list[Slot]:
        return [slot for slot in self._slots.values() if slot.is_taken]

    def refresh(self, capacity: Mapping[str, int]) -> None:
        """The nodes that are there now, and how many lives each holds. Lives that go on keep their slots."""
        wanted = {(node, number) for node, most in capacity.items() for number in range(most)}
        for key in [key for key, slot in self._slots.items() if key not in wanted and not slot.is_taken]:
            del self._slots[key]
        for node, number in sorted(wanted - self._slots.keys()):
            self._slots[node, number] = Slot(
                node=node,
                number=number,
                idle=Patience(first_seconds=IDLE_SECONDS, longest_seconds=LONGEST_IDLE_SECONDS, dice=self.dice),
                unable=Patience(first_seconds=UNABLE_SECONDS, longest_seconds=LONGEST_UNABLE_SECONDS, dice=self.dice),
            )

    def due(self, now: float) -> list[Slot]:
        """The slots in which a life is to begin now, the longest rested first."""
        taken = self.taken
        room = len(self._slots) if self.most is None else self.most - len(taken)
        if self.max_jobs is not None:
            # Each life that has no job yet may still get one.
            room = min(room, self.max_jobs - self.jobs - sum(not slot.leased for slot in taken))
        if self.is_winding_down(now) or room <= 0:
            return []
        free = [slot for slot in self._slots.values() if not slot.is_taken and slot.rests_until <= now]
        return sorted(free, key=lambda slot: slot.rests_until)[:room]

    def began(self, slot: Slot) -> None:
        slot.is_taken, slot.leased = True, False

    def leased(self, slot: Slot) -> None:
        """The life in this slot has a job."""
        slot.leased = True
        self.jobs += 1

    def ended(self, slot: Slot, how: How, now: float) -> None:
        """The life in this slot is over."""
        if slot.leased:
            self.since = now
        slot.is_taken = slot.leased = False
        if how == "worked":
            slot.idle.reset()
            slot.unable.reset()
            slot.rests_until = now
        elif how == "idle":
            slot.unable.reset()
            slot.rests_until = now + slot.idle.next_wait_seconds()
        else:
            slot.rests_until = now + slot.unable.next_wait_seconds()

    def is_winding_down(self, now: float) -> bool:
        """Whether no life is to begin any more: there were no jobs for so long, or enough."""
        if self.max_jobs is not None and self.jobs >= self.max_jobs:
            return True
        if self.idle_exit_seconds is None or any(slot.leased for slot in self.taken):
            return False
        return now - self.since >= self.idle_exit_seconds

    def is_done(self, now: float) -> bool:
        """Whether the fleet leaves."""
        return self.is_winding_down(now) and not self.taken
