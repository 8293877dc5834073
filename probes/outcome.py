"""Tells apart the ways in which a measured process can end without saying so itself."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from probes.host import memory_groups
from probes.measurement import Outcome
from probes.process import Ended

TAIL_CHARACTERS = 4000
"""Of the process's last output, in the detail of a crash."""
VMSTAT = Path("/proc/vmstat")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What the end of a process is to the point that was running.

    Attributes:
        detail: for people; nothing is read from it. killed: whether somebody else ended the process, which says nothing
            of the point.
    """

    outcome: Outcome
    detail: str
    killed: bool = False


def outcome_of(ended: Ended, *, timed_out: float | None, oom_killed: bool, output: str) -> Ending:
    """The outcome of the point that was running, and what to say of it.

    Args:
        timed_out: the limit in seconds that ran out, or None. oom_killed: whether the kernel killed some process for
            want of host memory meanwhile. output: the last that the process wrote.
    """
    if timed_out is not None:
        return Ending(outcome="timed_out", detail=_with_output(f"not finished after {timed_out:g} s", output))
    if ended.code == -signal.SIGKILL and not ended.stopped and oom_killed:
        detail = _with_output("killed by the kernel, out of host memory", output)
        return Ending(outcome="host_out_of_memory", detail=detail)
    # Without a code, the leash was killed, and the process with it.
    killed = ended.code is None or ended.code == -signal.SIGKILL
    return Ending(outcome="crashed", detail=_with_output(_how(ended), output), killed=killed)


def oom_kills() -> dict[str, int]:
    """How many processes the kernel has killed for want of memory, by the file that counts them."""
    return {str(file): count for file, count in _counters()}


def raised(before: Mapping[str, int], after: Mapping[str, int]) -> bool:
    """Whether a counter that was there before is larger now."""
    return any(after.get(name, count) > count for name, count in before.items())


def _counters() -> Iterator[tuple[Path, int]]:
    counting = {2: "memory.events", 1: "memory.oom_control"}
    files = [VMSTAT, *(folder / counting[version] for version, folder in memory_groups())]
    for file in dict.fromkeys(files):
        with suppress(OSError, ValueError):
            lines = (line.split() for line in file.read_text().splitlines())
            for line in lines:
                if line and line[0] == "oom_kill":
                    yield file, int(line[1])


def _how(ended: Ended) -> str:
    if ended.code is None:
        return "the process was killed together with its leash"
    if ended.code < 0:
        return f"killed by {_signal_name(-ended.code)}"
    return f"ended with exit code {ended.code} and no result"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _with_output(text: str, output: str) -> str:
    return f"{text}; last output:\n{output[-TAIL_CHARACTERS:]}" if output else text
