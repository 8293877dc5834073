"""Tells apart the ways in which a measured process can end without saying so itself."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from probes.host import memory_groups
from probes.measurement import Outcome
from probes.process import Ended

TAIL_CHARACTERS = 4000
"""Of the process's last output, in the detail of a crash."""
VMSTAT = Path("/proc/vmstat")
WITH_ITS_LEASH = "the process was killed together with its leash"
BY_SIGKILL = f"killed by {signal.SIGKILL.name}"


def outcome_of(ended: Ended, *, timed_out: float | None, oom_killed: bool, output: str) -> tuple[Outcome, str]:
    """The outcome of the point that was running, and what to say of it.

    Args:
        timed_out: the limit in seconds that ran out, or None. oom_killed: whether the kernel killed some process for
            want of host memory meanwhile. output: the last that the process wrote.
    """
    if timed_out is not None:
        return "timed_out", _with_output(f"not finished after {timed_out:g} s", output)
    if ended.code == -signal.SIGKILL and not ended.stopped and oom_killed:
        return "host_out_of_memory", _with_output("killed by the kernel, out of host memory", output)
    return "crashed", _with_output(_how(ended), output)


def was_killed(detail: str | None) -> bool:
    """Whether the detail of a crash says that somebody else ended the process: it says nothing of the point then."""
    return (detail or "").startswith((WITH_ITS_LEASH, BY_SIGKILL))


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
        return WITH_ITS_LEASH
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
