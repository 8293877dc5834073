"""Watches a measured process to its end: hears its events, keeps its time, and looks who else is on the card."""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Iterator, Mapping
from functools import partial

from probes.ballast import Ballast
from probes.document import Result
from probes.following import Following
from probes.neighbours import NeighbourWatch, descends_from, exists
from probes.nvml import CardWatch
from probes.outcome import TAIL_CHARACTERS, oom_kills, outcome_of, raised
from probes.process import GRACE_SECONDS, Ended, LeashedProcess
from probes.protocol import Event, EventReader

TICK_SECONDS = 0.5
LINGER_SECONDS = 60.0
"""For a process that is done to end by itself, and for a killed one to be gone."""


def follow(process: LeashedProcess, following: Following, card: CardWatch, *, time_limit_seconds: float) -> None:
    """Watch until the process is gone; every point that was tried is then measured in ``following``."""
    kills_before = oom_kills()
    clock = _Clock(time_limit_seconds)
    if card.sample() is not None:
        ballast = following.ballast
        ours = partial(_is_ours, process, ballast)
        following.neighbours = NeighbourWatch(ours, exists, holders=1 if ballast is None else 2)
    for event in _events(process, clock, card, following):
        if following.take(event):
            clock.restart()
            if clock.expired:  # it was finished while being stopped, and the next has had no time
                following.running = None
        if following.done:
            clock.finish()
    following.end(partial(_ending, process, clock, kills_before))


def _ending(process: LeashedProcess, clock: _Clock, kills_before: Mapping[str, int]) -> Result:
    ending = outcome_of(
        process.ended or Ended(code=None, stopped=True),
        timed_out=clock.limit_seconds if clock.expired else None,
        oom_killed=raised(kills_before, oom_kills()),
        output=process.output(TAIL_CHARACTERS),
    )
    return Result(outcome=ending.outcome, detail=ending.detail, killed=ending.killed)


def _events(process: LeashedProcess, clock: _Clock, card: CardWatch, following: Following) -> Iterator[Event]:
    """The events as they come, until the process is gone; it is stopped when its time has run out."""
    reader = EventReader()
    with selectors.DefaultSelector() as selector:
        for fd in (process.events_fd, process.reports_fd):
            selector.register(fd, selectors.EVENT_READ)
        while process.ended is None and not clock.given_up:
            ready = {key.fd for key, _ in selector.select(min(TICK_SECONDS, clock.left_seconds))}
            _look(card, following)
            if process.events_fd in ready:
                piece = os.read(process.events_fd, 65536)
                yield from reader.feed(piece)
                if not piece:
                    selector.unregister(process.events_fd)
            if process.reports_fd in ready:
                process.hear()
            if clock.expires():
                process.stop()
    # What it wrote before it ended. A descendant that escaped may hold the pipe open, so this never waits.
    os.set_blocking(process.events_fd, False)
    while piece := _read_now(process.events_fd):
        yield from reader.feed(piece)


def _look(card: CardWatch, following: Following) -> None:
    if following.neighbours is not None:
        following.neighbours.note(card.sample())


def _read_now(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except BlockingIOError:
        return b""


def _is_ours(process: LeashedProcess, ballast: Ballast | None, pid: int) -> bool:
    if ballast is not None and pid == ballast.process.pid:
        return True
    return descends_from(pid, process.leash_pid, process.pid)


class _Clock:
    """The time that the running point has left, and then the time in which a stopped process must be gone."""

    def __init__(self, limit_seconds: float) -> None:
        self.limit_seconds = limit_seconds
        self.expired = False
        self._done = False
        self._end = time.monotonic() + limit_seconds

    def restart(self) -> None:
        """A point is finished. One that is being stopped gets no more time."""
        if not self.expired:
            self._end = time.monotonic() + self.limit_seconds

    def finish(self) -> None:
        """All is measured: what is left is the process's own end."""
        if not self._done and not self.expired:
            self._done = True
            self._end = time.monotonic() + LINGER_SECONDS

    def expires(self) -> bool:
        """Whether the time runs out now; true once."""
        if self.expired or self.left_seconds > 0:
            return False
        self.expired = True
        self._end = time.monotonic() + GRACE_SECONDS + LINGER_SECONDS
        return True

    @property
    def given_up(self) -> bool:
        """Whether a stopped process did not go: it is inside the driver, where no signal reaches it."""
        return self.expired and self.left_seconds <= 0

    @property
    def left_seconds(self) -> float:
        return max(0.0, self._end - time.monotonic())
