"""Host RAM that a run may use: what the kernel says is available, and what a control group allows."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

KIB = 1024
NO_LIMIT_BYTES = 2**60
"""cgroup v1 writes a number about as large as 2^63 where there is no limit."""
ROOT = Path("/")


class HostRam(NamedTuple):
    """Bytes; None where this machine does not say. ``limit_bytes``: the smallest limit of the control groups above."""

    total_bytes: int | None
    available_bytes: int | None
    limit_bytes: int | None

    @property
    def usable_bytes(self) -> int | None:
        """What a run may take before the kernel ends it."""
        return min((n for n in (self.available_bytes, self.limit_bytes) if n is not None), default=None)


class MemoryGroup(NamedTuple):
    """A control group that counts this process's memory: version 1 or 2 of the kernel's interface, and its folder."""

    version: int
    folder: Path


def host_ram(root: Path = ROOT) -> HostRam:
    """Read it now. ``root``: where ``proc`` and ``sys`` are."""
    read = _meminfo(root / "proc" / "meminfo")
    return HostRam(read.get("MemTotal"), read.get("MemAvailable"), _limit(root))


def memory_groups(root: Path = ROOT) -> list[MemoryGroup]:
    """The groups that this process is in, innermost first, up to the mount points, where a container finds its own."""
    mounts = {2: root / "sys" / "fs" / "cgroup", 1: root / "sys" / "fs" / "cgroup" / "memory"}
    groups = []
    for version, path in _own_groups(root / "proc" / "self" / "cgroup"):
        own = mounts[version] / path
        groups += [MemoryGroup(version, folder) for folder in (own, *own.parents) if mounts[version] in folder.parents]
    return groups + [MemoryGroup(version, mount) for version, mount in mounts.items()]


def _meminfo(file: Path) -> dict[str, int]:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name: int(text.split()[0]) * KIB for name, _, text in pairs if text.split() and text.split()[0].isdecimal()}


def _limit(root: Path) -> int | None:
    names = {2: "memory.max", 1: "memory.limit_in_bytes"}
    found = (_number(folder / names[version]) for version, folder in memory_groups(root))
    return min((limit for limit in found if limit is not None and limit < NO_LIMIT_BYTES), default=None)


def _own_groups(file: Path) -> list[tuple[int, str]]:
    """Version and path of this process's memory groups. Source: cgroups(7), /proc/pid/cgroup."""
    try:
        fields = [line.split(":", 2) for line in file.read_text().splitlines()]
    except OSError:
        return []
    counting = [(controllers, path.strip("/")) for _, controllers, path in fields]
    return [(2 if not names else 1, path) for names, path in counting if not names or "memory" in names.split(",")]


def _number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
