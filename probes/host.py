"""Host RAM that a run may use: what the kernel says is available, and what a control group allows."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

KIB = 1024
NO_LIMIT_BYTES = 2**60
"""cgroup v1 writes a number about as large as 2^63 where there is no limit."""


class HostRam(NamedTuple):
    """Bytes; None where this machine does not say. ``limit_bytes``: the smallest limit of the control groups above."""

    total_bytes: int | None
    available_bytes: int | None
    limit_bytes: int | None

    @property
    def usable_bytes(self) -> int | None:
        """What a run may take before the kernel ends it."""
        return min((n for n in (self.available_bytes, self.limit_bytes) if n is not None), default=None)


def host_ram(root: Path = Path("/")) -> HostRam:
    """Read it now. ``root``: where ``proc`` and ``sys`` are."""
    read = _meminfo(root / "proc" / "meminfo")
    return HostRam(read.get("MemTotal"), read.get("MemAvailable"), _limit(root))


def _meminfo(file: Path) -> dict[str, int]:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name: int(text.split()[0]) * KIB for name, _, text in pairs if text.split() and text.split()[0].isdecimal()}


def _limit(root: Path) -> int | None:
    groups = root / "sys" / "fs" / "cgroup"
    files = [groups / "memory" / "memory.limit_in_bytes", groups / "memory.max"]
    for own in _own_groups(root / "proc" / "self" / "cgroup"):
        files += [
            folder / "memory.max" for folder in (groups / own, *(groups / own).parents) if groups in folder.parents
        ]
    limits = [limit for limit in map(_number, files) if limit is not None and limit < NO_LIMIT_BYTES]
    return min(limits, default=None)


def _own_groups(file: Path) -> list[str]:
    """This process's groups below the mount point, as far as they can be seen from here."""
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return []
    return [line.rpartition(":")[2].strip("/") for line in lines if line.rpartition(":")[2].strip("/")]


def _number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
