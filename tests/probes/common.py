"""Points of a tiny job, waiting for what other processes do, and what they may leave behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, TypeVar

from estimator import parse_job
from probes.points import Point

JOB: dict[str, Any] = {"model": "unsloth/Llama-3.2-1B-Instruct", "num_hidden_layers": 2, "max_seq_length": 64}
DEADLINE_SECONDS = 20.0
T = TypeVar("T")


def point(**changes: Any) -> Point:
    return replace(Point(job=parse_job(JOB), trainer="sft"), **changes)


def points(*lengths: int) -> tuple[Point, ...]:
    return tuple(Point(job=parse_job({**JOB, "sequence_length": length}), trainer="sft") for length in lengths)


def wait_for(look: Callable[[], T], what: str, *, seconds: float = DEADLINE_SECONDS, every: float = 0.01) -> T:
    """Look until there is something to see."""
    end = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < end, f"never came within {seconds:g} s: {what}"
        time.sleep(every)
    return seen


@contextmanager
def started(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is gone at the end; what it says is in the log."""
    with log.open("wb") as said, subprocess.Popen(command, env=environment, stdout=said, stderr=said) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            finally:
                process.kill()


def addresses(log: str) -> list[str]:
    """Where a service's log says that it serves; empty as long as it does not."""
    return re.findall(r'"address": "(http://[^"]+)"', log)


def said_address(log: IO[Any]) -> str:
    """The same of a log that is still written: it is read as far as the line that says it."""
    read = []
    for line in log:
        read.append(line if isinstance(line, str) else line.decode())
        if found := addresses(read[-1]):
            return found[0]
    raise AssertionError(f"the service did not start: {''.join(read)}")


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def read_number(file: Path) -> int:
    """A number that another process writes into a file, whole."""
    return int(wait_for(lambda: file.exists() and file.read_text(), str(file)))


def work_folders(pid: int | None = None) -> list[Path]:
    """Work folders that probes of a process have now."""
    return list(Path(tempfile.gettempdir()).glob(f"ctxplan-probe-{pid or os.getpid()}-*"))
