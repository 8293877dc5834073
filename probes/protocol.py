"""What passes between the parent of a probe and the process that is measured: one request, then events.

The request is a JSON file in the work folder (`Request`); the process gets its path as its only argument. Events are
JSON lines that the process writes to an inherited pipe, whose number is in `EVENTS_VARIABLE`:

    {"event": "progress", "phase": PHASE, "index": 0, "step": 1 | null, "allocated_bytes": 123 | null}
    {"event": "measured", "index": 0, "facts": {...}}       facts: fields of `probes.measurement.Measurement`
    {"event": "failed", "index": 0, "kind": KIND, "message": "...", "out_of_memory": {...} | null, "facts": {...}}
    {"event": "done"}

Whatever else arrives, half a line of a process that was killed included, is passed over.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from probes.points import Point

EVENTS_VARIABLE = "CTXPLAN_PROBE_EVENTS"
REQUEST_FILE = "request.json"
OUTPUT_FILE = "output.txt"
LONGEST_LINE = 2**26
"""Bytes of one event; a longer line is no event. A snapshot's live tensors take about a hundred thousand."""

FAILURES = ("out_of_memory", "host_out_of_memory", "not_supported", "crashed", "unavailable")
"""Kinds of a failed event. ``crashed``: the device failed, or another batch ran than the point's. ``unavailable``: a
package, or room on the disk, that this machine lacks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the process is asked for.

    Attributes:
        workdir: the folder for whatever the process writes.
        cap: as `probes.measurement.Cap`, or null.
    """

    points: Sequence[Point]
    workdir: str
    snapshot: bool = False
    cap: Mapping[str, Any] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "points": [point.to_json() for point in self.points],
            "workdir": self.workdir,
            "snapshot": self.snapshot,
            "cap": dict(self.cap) if self.cap else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a point is. ``step`` counts from 1."""

    phase: str
    index: int
    step: int | None = None
    allocated_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A point that ended well."""

    index: int
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A point that ended in an error which the process could still tell."""

    index: int
    kind: str
    message: str
    out_of_memory: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing more will come."""


Event = Progress | Measured | Failed | Done


class Events:
    """The process's end of the pipe. A parent that has gone away changes nothing about the run."""

    def __init__(self, fd: int | None) -> None:
        """fd: where lines go; None (a process started by hand) writes nothing."""
        self._fd = fd
        self._lock = threading.Lock()

    def write(self, document: Mapping[str, Any]) -> None:
        """Write one event as one line."""
        line = json.dumps(document, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            self._write_line(line)

    def _write_line(self, line: bytes) -> None:
        # One write a line; the kernel takes a long one in parts only where a signal handler interrupts it.
        while line and self._fd is not None:
            try:
                line = line[os.write(self._fd, line) :]
            except OSError:
                self._fd = None


def open_events(environment: Mapping[str, str] | None = None) -> Events:
    """The pipe that the parent left open, or one that writes nothing where there is none."""
    number = (os.environ if environment is None else environment).get(EVENTS_VARIABLE, "")
    return Events(int(number) if number.isdecimal() else None)


class EventReader:
    """Turns what the pipe gives into events, however it is cut into pieces."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, piece: bytes) -> Iterator[Event]:
        """The events that the piece completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            self._rest = b""
        for line in lines:
            event = read_event(line)
            if event is not None:
                yield event


def read_event(line: bytes) -> Event | None:
    """One line as an event; None where it is not one."""
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    if data.get("event") == "done":
        return Done()
    index = data.get("index")
    if not isinstance(index, int) or not _is_count(index):
        return None
    read = {"progress": _progress, "measured": _measured, "failed": _failed}.get(str(data.get("event")))
    return read(index, data) if read else None


def _progress(index: int, data: Mapping[str, Any]) -> Progress | None:
    phase, step, allocated = data.get("phase"), data.get("step"), data.get("allocated_bytes")
    if not isinstance(phase, str) or not all(value is None or _is_count(value) for value in (step, allocated)):
        return None
    return Progress(phase=phase, index=index, step=step, allocated_bytes=allocated)


def _measured(index: int, data: Mapping[str, Any]) -> Measured | None:
    facts = data.get("facts")
    return Measured(index=index, facts=facts) if isinstance(facts, dict) else None


def _failed(index: int, data: Mapping[str, Any]) -> Failed | None:
    kind, described, facts = data.get("kind"), data.get("out_of_memory"), data.get("facts") or {}
    if kind not in FAILURES or not isinstance(facts, dict):
        return None
    return Failed(
        index=index,
        kind=kind,
        message=str(data.get("message") or kind),
        out_of_memory=described if isinstance(described, dict) else None,
        facts=facts,
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
