"""Tells whether another process used the card while a point was measured, which makes the point void.

What is decided here needs no GPU: it takes what NVML said (`probes.nvml`) as plain data.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

IDLE_BYTES = 2**30
"""What an idle driver, and a desktop on the card, may use."""
NOT_CHECKED = "neighbours were not checked during the run: the driver lists no process of this machine's numbers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What is on a card: bytes used, and the processes that compute there, by PID with their bytes where known."""

    used_bytes: int
    processes: Mapping[int, int | None] = field(default_factory=dict)


def busy(sample: Sample) -> str | None:
    """Who uses a card on which nothing of ours runs yet, in words; None where nobody does."""
    if sample.processes:
        return f"the card is in use by {_listed(sample.processes)}"
    if sample.used_bytes > IDLE_BYTES:
        return f"{sample.used_bytes} bytes of the card are in use by processes that the driver does not list"
    return None


class NeighbourWatch:
    """Notes who is on the card during a run, and says in the end whether somebody else was.

    In a container the driver may list the PIDs of the host, or none: then strangers are told by their number.
    """

    def __init__(self, ours: Callable[[int], bool], exists: Callable[[int], bool], *, holders: int = 1) -> None:
        """ours: whether a PID is of the measured group or its ballast. exists: whether this machine has such a PID.
        holders: how many processes of ours hold memory of the card, ballast included."""
        self._ours, self._exists, self._holders = ours, exists, holders
        self._mapped = False
        self._most = 0
        self._once: frozenset[int] = frozenset()
        self._strangers: dict[int, int | None] = {}

    def note(self, sample: Sample | None) -> None:
        """Take in what is on the card now."""
        if sample is None:
            return
        unknown = frozenset(pid for pid in sample.processes if not self._ours(pid))
        self._mapped = self._mapped or len(unknown) < len(sample.processes)
        self._most = max(self._most, len(sample.processes))
        for pid in unknown:
            # One that this machine does not have may have ended just now, and have been ours: it must be seen twice.
            if self._exists(pid) or pid in self._once:
                self._strangers[pid] = sample.processes[pid]
        self._once = unknown

    def neighbour(self) -> str | None:
        """Who else was there, in words."""
        if self._mapped and self._strangers:
            return f"the card was used by {_listed(self._strangers)}"
        if not self._mapped and self._most > self._holders:
            return f"{self._most} processes used the card, where {self._holders} of ours did"
        return None

    @property
    def checked(self) -> bool:
        """Whether the driver's PIDs are this machine's, so that the answer is sure."""
        return self._mapped


def exists(pid: int) -> bool:
    """Whether this machine has a process of that number."""
    return Path(f"/proc/{pid}").exists()


def descends_from(pid: int, ancestor: int, session: int | None) -> bool:
    """Whether a process is of the session, or comes from the ancestor."""
    for _ in range(64):
        if pid == ancestor:
            return True
        try:
            text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
        except OSError:
            return False
        _, parent, _, its_session, *_ = text.rpartition(")")[2].split()
        if session is not None and int(its_session) == session:
            return True
        pid = int(parent)
        if pid <= 1 or pid == os.getpid():
            return pid == ancestor
    return False


def _listed(processes: Mapping[int, int | None]) -> str:
    sizes = ((pid, "" if size is None else f" ({size} bytes)") for pid, size in sorted(processes.items()))
    return ", ".join(f"PID {pid}{size}" for pid, size in sizes)
