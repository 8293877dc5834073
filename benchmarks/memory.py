"""How much memory a service has: its own and that of the processes it has started, for plans are made in those."""

from __future__ import annotations

import os
from pathlib import Path


def resident_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process and of those that it has started, by default of this one; 0 once it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(map(resident_bytes, _started_by(pid)))


def _started_by(pid: int | str) -> list[int]:
    found = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(one) for one in file.read_text(encoding="ascii").split()]
        except (FileNotFoundError, ProcessLookupError):  # that thread has ended meanwhile
            continue
    return found
