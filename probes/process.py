"""The parent's side of the measured process: start it on its leash, hear how it ends, leave nothing behind (`leash`
says within which limits)."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from probes.errors import ProbeUnavailable
from probes.files import NO_SPACE
from probes.protocol import EVENTS_VARIABLE, OUTPUT_FILE

LEASH = Path(__file__).with_name("leash.py")
GRACE_SECONDS = 5.0
"""Between SIGTERM and SIGKILL of a process that is stopped."""
CLOSING_SECONDS = 60.0
"""The leash's own limits are shorter; past this it is killed, and its work done here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How the process ended. ``code`` is negative for a signal, and None where the leash was lost with it.

    Attributes:
        stopped: whether it was ended from here.
    """

    code: int | None
    stopped: bool


def new_workdir() -> Path:
    """A private folder's name; the leash makes the folder."""
    return Path(tempfile.gettempdir()) / f"ctxplan-probe-{os.getpid()}-{secrets.token_hex(8)}"


class LeashedProcess:
    """A process in a group of its own, ended with all it started, and its work folder removed, at the end of ``with``.

    Attributes:
        events_fd, reports_fd: to be read from; the second through `hear`.
        pid: of the process, which leads its group and session; None until the leash reports it.
        ended: how it ended; None while it runs.
    """

    def __init__(
        self, argv: Sequence[str], *, workdir: Path, environment: Mapping[str, str], files: Mapping[str, str]
    ) -> None:
        """files: texts that the work folder holds when the process starts. Raises ProbeUnavailable."""
        self.workdir = workdir
        self.pid: int | None = None
        self.ended: Ended | None = None
        self._reports = b""
        self.events_fd, writes = os.pipe()
        try:
            self._leash = subprocess.Popen(
                [sys.executable, "-I", "-S", str(LEASH)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=(writes,),
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            os.close(self.events_fd)
            raise ProbeUnavailable(f"no process can be started: {error.strerror}") from None
        finally:
            os.close(writes)
        self._order = {
            "parent": os.getpid(),
            "argv": list(argv),
            "workdir": str(workdir),
            "environment": {**environment, EVENTS_VARIABLE: str(writes)},
            "files": dict(files),
            "output": OUTPUT_FILE,
            "events_fd": writes,
            "grace_seconds": GRACE_SECONDS,
        }

    @property
    def reports_fd(self) -> int:
        assert self._leash.stdout is not None  # noqa: S101
        return self._leash.stdout.fileno()

    @property
    def leash_pid(self) -> int:
        return self._leash.pid

    def __enter__(self) -> LeashedProcess:
        try:
            self._send(json.dumps(self._order).encode() + b"\n")
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def hear(self) -> None:
        """Read what the leash reports; call when `reports_fd` is readable.

        Raises:
            ProbeUnavailable: the process could not be started, on a full disk for one.
        """
        piece = os.read(self.reports_fd, 65536)
        if not piece and self.ended is None:
            self.ended = Ended(code=None, stopped=False)
        *lines, self._reports = (self._reports + piece).split(b"\n")
        for line in lines:
            report = json.loads(line)
            if "refused" in report:
                full = " (no space left)" if report["errno"] in NO_SPACE else ""
                raise ProbeUnavailable(f"{report['refused']}{full}")
            self.pid = report.get("started", self.pid)
            if "ended" in report:
                self.ended = Ended(code=report["ended"], stopped=report["stopped"])

    def stop(self) -> None:
        """Ask for the end: SIGTERM, and SIGKILL after `GRACE_SECONDS`; `ended` says when it came."""
        self._send(b"stop\n")

    def output(self, longest: int) -> str:
        """The last characters that the process wrote."""
        try:
            with (self.workdir / OUTPUT_FILE).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - 4 * longest))
                return file.read().decode(errors="replace").strip()[-longest:]
        except OSError:
            return ""

    def close(self) -> None:
        """End all of it, at once where it still runs, and remove the work folder."""
        stdin, stdout = self._leash.stdin, self._leash.stdout
        assert stdin is not None and stdout is not None  # noqa: S101, PT018
        with suppress(OSError):
            stdin.close()
        try:
            self._leash.wait(CLOSING_SECONDS)
        except subprocess.TimeoutExpired:
            self._leash.kill()
            self._leash.wait()
        finally:
            self._close_pipes()
        if self._leash.returncode != 0:
            self._do_the_leashs_work()

    def _close_pipes(self) -> None:
        if self._leash.returncode not in (0, None) and self.pid is None and self.ended is None:
            with suppress(OSError, ProbeUnavailable, ValueError):
                self.hear()  # a leash that was killed at once may have named the process
        assert self._leash.stdout is not None  # noqa: S101
        self._leash.stdout.close()
        os.close(self.events_fd)

    def _do_the_leashs_work(self) -> None:
        """The process died with its leash (PDEATHSIG); what is left is the rest of its group, and the folder."""
        if self.pid is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        shutil.rmtree(self.workdir, ignore_errors=True)

    def _send(self, line: bytes) -> None:
        assert self._leash.stdin is not None  # noqa: S101
        with suppress(BrokenPipeError):
            rest = memoryview(line)
            while rest:
                rest = rest[self._leash.stdin.write(rest) :]
