"""A process of the run. Its words are kept in a file, by way of a pipe: a limit on its files is none on them."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread

ROOT = Path(__file__).resolve().parents[2]
END_SECONDS = 60.0


class Process:
    """Started, ended and started again.

    Attributes:
        log: what all its lives said. rests_until: when it may be started again, on the monotonic clock.
    """

    def __init__(self, arguments: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        self.rests_until = 0.0
        self._command = [sys.executable, "-m", "app", *arguments]
        self._environment = {**os.environ, **environment}
        self._process: subprocess.Popen[bytes] | None = None
        self._listener: Thread | None = None

    def start(self) -> None:
        """Begin its next life."""
        self.end()
        self._process = subprocess.Popen(
            self._command,
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self._listener = Thread(target=self._listen, args=(self._process,))
        self._listener.start()

    @property
    def pid(self) -> int | None:
        """None where it does not run."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """Of the life that ended last; None while it runs, and before the first."""
        return None if self._process is None else self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, where it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def limit_files(self, longest_bytes: int | None) -> None:
        """Let it write no file beyond that, as if the disk were full; None: as long as it likes. Its own children
        that run already are left alone."""
        if (pid := self.pid) is not None:
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            soft = hard if longest_bytes is None else longest_bytes
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))

    def below(self) -> list[int]:
        """The processes that it has started, and they in turn: the nearest first."""
        found, parents = list[int](), children_by_parent()
        waiting = [] if self.pid is None else [self.pid]
        while waiting:
            children = parents.get(waiting.pop(0), [])
            found += children
            waiting += children
        return found

    def wait(self, seconds: float = END_SECONDS) -> int | None:
        """Its exit code; None where it has not ended within that."""
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                return self._process.wait(seconds)
        return None

    def end(self) -> None:
        """End it, if it runs, and wait for its last words."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        assert self._listener is not None
        self._listener.join()
        self._process = None

    def said(self) -> str:
        """All that it said."""
        return self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""

    def described(self) -> str:
        """Where it stands, and its last words."""
        state = ""
        with suppress(OSError):
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        return (
            f"{self.log.name}: exit code {self.exit_code}, state {state}, below {self.below()}: {self.said()[-1500:]}"
        )

    def _listen(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr as stream, self.log.open("ab", buffering=0) as log:
            while piece := stream.read(65536):
                log.write(piece)


def children_by_parent() -> dict[int, list[int]]:
    """The processes of this machine, by that which started them."""
    found: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            with suppress(OSError, IndexError, ValueError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                found.setdefault(parent, []).append(int(folder.name))
    return found
