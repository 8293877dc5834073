"""Makes a measurement of each point of a process from the events that tell of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from probes.ballast import Ballast
from probes.document import Result, Setting, compose
from probes.errors import ProbeUnavailable
from probes.measurement import Measurement, Outcome
from probes.neighbours import NOT_CHECKED, NeighbourWatch
from probes.points import Point
from probes.protocol import Done, Event, Failed, Measured, Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the caller wants to hear, and its clock."""

    on_progress: Callable[[Progress], None]
    on_measurement: Callable[[Measurement], None]
    now: Callable[[], datetime]


@dataclass(slots=True, kw_only=True)
class Following:
    """The points of a process, and how far they are.

    Attributes:
        neighbours: who is on the card; None without one.
        running: the point that is being measured; None when all are, and after one that failed until another begins.
        done: whether the process said that nothing more will come.
    """

    points: Sequence[Point]
    setting: Setting
    ballast: Ballast | None
    hooks: Hooks
    neighbours: NeighbourWatch | None = None
    measurements: list[Measurement] = field(default_factory=list)
    running: int | None = 0
    done: bool = False
    _finished: list[int] = field(default_factory=list)
    _last: Progress = field(default_factory=lambda: Progress(phase="start", index=0))

    def take(self, event: Event) -> bool:
        """Take an event in. Returns whether it finished a point.

        Raises:
            ProbeUnavailable: the process found that this machine lacks something.
        """
        if isinstance(event, Done):
            self.done = True
            return False
        if event.index >= len(self.points) or event.index in self._finished:
            return False
        if isinstance(event, Progress):
            self.running, self._last = event.index, event
            self.hooks.on_progress(event)
            return False
        if isinstance(event, Measured):
            self._finish(event.index, Result(outcome="ok", facts=event.facts))
            left = (index for index in range(len(self.points)) if index not in self._finished)
            self.running = next(left, None)
        else:
            self._finish(event.index, self._failure(event))
            self.running = None
        return True

    def end(self, result: Callable[[], Result]) -> None:
        """The process is gone: what was running, if anything, ended so."""
        if self.running is not None:
            self._finish(self.running, result())
            self.running = None

    def _failure(self, event: Failed) -> Result:
        if event.kind == "unavailable":
            raise ProbeUnavailable(event.message)
        outcomes: dict[str, Outcome] = {
            "out_of_memory": "out_of_memory",
            "host_out_of_memory": "host_out_of_memory",
            "not_supported": "not_supported",
            "crashed": "crashed",
        }
        described = event.out_of_memory or self._undescribed(event.message)
        return Result(
            outcome=outcomes[event.kind],
            detail=event.message,
            out_of_memory=described if event.kind == "out_of_memory" else None,
            facts=event.facts,
        )

    def _undescribed(self, message: str) -> Mapping[str, Any]:
        unknown = dict.fromkeys(("tried_bytes", "allocated_bytes", "reserved_bytes"))
        return {"phase": self._last.phase, "step": self._last.step, "message": message, **unknown}

    def _finish(self, index: int, result: Result) -> None:
        before = tuple(self.points[finished].sequence_length for finished in self._finished)
        self._finished.append(index)
        measurement = compose(
            self.points[index], self._in_company(result), self.setting, lengths_before=before, now=self.hooks.now()
        )
        self.measurements.append(measurement)
        self.hooks.on_measurement(measurement)

    def _in_company(self, result: Result) -> Result:
        """The result; void where another process was on the card, or where the ballast was not."""
        said = f"; {result.detail}" if result.detail else ""
        found = self.neighbours.neighbour() if self.neighbours else None
        if found:
            return replace(result, outcome="neighbour", detail=f"{found}{said}", out_of_memory=None)
        if self.ballast is not None and not self.ballast.holds:
            return replace(result, outcome="crashed", detail=f"the ballast ended first{said}", out_of_memory=None)
        if self.neighbours and not self.neighbours.checked and result.outcome in ("ok", "out_of_memory"):
            return replace(result, detail=f"{NOT_CHECKED}{said}")
        return result
