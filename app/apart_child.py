"""One of the processes of `app.apart`, seen from the service: its start, its pipes and its end."""

from __future__ import annotations

import pickle
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from typing import Any

from app.apart_process import HEAD
from app.children import start_child
from estimator.calibration.document import Calibration
from estimator.errors import CtxplanError

STOP_SECONDS = 5.0
MOST_SAID = 4000
"""Bytes of a line that a process says; what is longer is cut in several."""


class WorkFailed(RuntimeError):
    """The work, or its process, ended as it never should. Says how, with the traceback where there is one."""


class ProcessGone(WorkFailed):
    """The process ended over its work."""


class NoProcess(CtxplanError):
    """None can be started."""

    code = "not-ready"


@dataclass(slots=True)
class Running:
    """A process, who listens to what it says, and what it was told last to calculate with."""

    popen: subprocess.Popen[bytes]
    listener: Thread
    knows: Calibration | None = None


class Child:
    """One process and the pipes to it: used by one thread at a time.

    Args:
        say: is given each line that the process writes on standard error, in a thread.

    Attributes:
        is_over: it was killed, and starts no other process.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.is_over = False
        self._say = say
        self._running: Running | None = None

    def start(self) -> Running:
        """Have the process, a new one where there is none any more. Raises OSError."""
        if self.is_over:
            raise OSError("it was ended")
        if self._running is not None and self._running.popen.poll() is None:
            return self._running
        self.end()
        popen = start_child("app.apart_process")
        listener = Thread(target=_listen, args=(popen, self._say), daemon=True)
        listener.start()
        self._running = Running(popen, listener)
        if self.is_over:  # since the thread that starts it was given up
            self.kill()
            raise OSError("it was ended")
        return self._running

    def do(
        self, calibration: Calibration, work: Callable[..., Any], given: tuple[Any, ...], named: dict[str, Any]
    ) -> Any:
        """Have the process do it, and wait. Raises what the work raises, NoProcess, and WorkFailed."""
        try:
            running = self.start()
        except OSError as error:
            raise NoProcess(f"no process can be started that would work on this: {error}") from None
        try:
            news = calibration if calibration is not running.knows else None
            order = pickle.dumps((news, work, given, named), protocol=pickle.HIGHEST_PROTOCOL)
            done, answer = _exchanged(running.popen, order)
        except (OSError, EOFError) as error:
            self.end()
            raise ProcessGone(f"its process is gone: {error}") from None
        # After a fault of its own the process may not have read the calibration: it is told again.
        running.knows = calibration if done or isinstance(answer, CtxplanError) else None
        if done:
            return answer
        raise answer

    def kill(self) -> None:
        """End the process, whatever it does, for good; in any thread."""
        self.is_over = True
        running = self._running  # the thread that waits for it may see its end first
        if running is not None:
            running.popen.kill()
        self.end()

    def end(self) -> None:
        """End the process: it leaves when it is asked nothing more."""
        running, self._running = self._running, None
        if running is None:
            return
        popen = running.popen
        assert popen.stdin is not None and popen.stdout is not None  # noqa: S101, PT018 - both are pipes
        with suppress(OSError):
            popen.stdin.close()
        try:
            popen.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()
        popen.stdout.close()
        running.listener.join(STOP_SECONDS)  # somebody whom the process started may write on


def _listen(popen: subprocess.Popen[bytes], say: Callable[[str], None]) -> None:
    assert popen.stderr is not None  # noqa: S101 - it is a pipe
    with popen.stderr as lines:
        while line := lines.readline(MOST_SAID):
            if text := line.decode(errors="replace").rstrip():
                say(text)


def _exchanged(popen: subprocess.Popen[bytes], order: bytes) -> tuple[bool, Any]:
    assert popen.stdin is not None and popen.stdout is not None  # noqa: S101, PT018 - both are pipes
    popen.stdin.write(HEAD.pack(len(order)))
    popen.stdin.write(order)
    popen.stdin.flush()
    (length,) = HEAD.unpack(_all(popen.stdout.read(HEAD.size), HEAD.size))
    done, what = pickle.loads(_all(popen.stdout.read(length), length))  # noqa: S301 - of our own process
    return done, what if done else _raised(*what)


def _all(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise EOFError("no answer")
    return data


def _raised(kind: type[Exception] | None, arguments: tuple[Any, ...], state: dict[str, Any]) -> Exception:
    """The exception again, without a call of its constructor, which may ask for more than was kept."""
    if kind is None:
        return WorkFailed(*arguments)
    error = kind.__new__(kind, *arguments)
    error.args = arguments
    error.__dict__.update(state)
    return error
