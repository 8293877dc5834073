"""The process that measures a point, from the worker's side: started, listened to, and ended with all that it started.

A process of its own, so that neither a fault in it nor what a probe does to its parent ends the worker, and so that a
point can be abandoned at any instant: when this process is killed, the leash ends the probe at once.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from ctxplan.variables import API_KEY
from probes.environment import python_path
from probes.leash import UNKILLABLE_SECONDS
from probes.worker.errors import WorkerError

TAIL_LINES = 40
HUNG_SECONDS = 600.0
"""Beyond the point's own time limit: for the card to be free, the ballast to be held and the process to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How this worker measures.

    Attributes:
        cpu: hide every GPU. device_index, cache_folder, child: as `probes.supervise.Options`; ``child`` empty: its own.
    """

    cpu: bool = False
    device_index: int | None = None
    cache_folder: Path | None = None
    child: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a measurement ended: with a document, or with why there is none.

    Attributes:
        why: the error's code. unavailable: this machine lacks something that the next point will lack as well.
    """

    document: Mapping[str, Any] | None = None
    why: str = ""
    message: str = ""
    unavailable: bool = False


class Runner:
    """One point being measured; ended, whatever it does, at the end of ``with``."""

    def __init__(self, point: Mapping[str, Any], setup: Setup, *, time_limit_seconds: float) -> None:
        """Raises WorkerError where no process can be started."""
        order = {
            "point": dict(point),
            "time_limit_seconds": time_limit_seconds,
            "device_index": setup.device_index,
            "cache_folder": str(setup.cache_folder) if setup.cache_folder else None,
            "child": list(setup.child),
        }
        # The key is the worker's: nothing that is measured has any use for it.
        around = {name: value for name, value in os.environ.items() if name != API_KEY}
        hidden = {"CUDA_VISIBLE_DEVICES": ""} if setup.cpu else {}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "probes.worker.measuring"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # Out of the terminal's group: Ctrl-C is the worker's to hear, which then drains.
                start_new_session=True,
                bufsize=0,
                env={**around, **hidden, "PYTHONPATH": python_path(os.environ)},
            )
        except OSError as error:
            raise WorkerError(f"no process can be started: {error.strerror}") from None
        self._tail: deque[bytes] = deque(maxlen=TAIL_LINES)
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()
        self._heard = b""
        self._outcome: Outcome | None = None
        self._send(json.dumps(order).encode() + b"\n")

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end()

    def wait(self, seconds: float, on_phase: Callable[[str], None]) -> Outcome | None:
        """How it ended; None where it has not yet, after so long."""
        assert self._process.stdout is not None  # noqa: S101
        if self._outcome is not None:
            return self._outcome
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        if not ready:
            return None
        piece = os.read(self._process.stdout.fileno(), 1 << 20)
        *lines, self._heard = (self._heard + piece).split(b"\n")
        for line in lines:
            told = _told(line)
            if told is not None:
                self._take(told, on_phase)
        if not piece and self._outcome is None:
            self._process.wait()
            self._listener.join(UNKILLABLE_SECONDS)
            said = b"".join(self._tail).decode(errors="replace").strip()
            message = f"ended with exit code {self._process.returncode} and no answer; {said[-2000:]}"
            self._outcome = Outcome(why="probe-died", message=message)
        return self._outcome

    def end(self) -> None:
        """End it, the probe and all that it started, and wait until they are gone."""
        for pipe in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                assert pipe is not None  # noqa: S101
                pipe.close()
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()
        # The leash has the same standard error, and lets go of it when the probe is gone.
        self._listener.join(UNKILLABLE_SECONDS + 5)

    def _take(self, told: Mapping[str, Any], on_phase: Callable[[str], None]) -> None:
        if "measurement" in told:
            self._outcome = Outcome(document=told["measurement"])
        elif "error" in told:
            error = told["error"]
            self._outcome = Outcome(why=error["code"], message=error["message"], unavailable=error["unavailable"])
        else:
            on_phase(told["phase"])

    def _listen(self) -> None:
        assert self._process.stderr is not None  # noqa: S101
        with self._process.stderr as stream:
            for line in stream:
                self._tail.append(line)

    def _send(self, line: bytes) -> None:
        assert self._process.stdin is not None  # noqa: S101
        with suppress(BrokenPipeError):
            rest = memoryview(line)
            while rest:
                rest = rest[self._process.stdin.write(rest) :]


def _told(line: bytes) -> Mapping[str, Any] | None:
    """What a line says; None where it is no word of ours, but a library's that prints to standard output."""
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None
