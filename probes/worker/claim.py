"""One worker for a GPU, and one for a spool: a lock on a file, which ends with the process that has it."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from probes.files import reason_of
from probes.nvml import Card
from probes.worker.errors import CardTaken, WorkerError


def lock_of(card: Card) -> Path:
    """The file that stands for a card: the same for every user of this machine."""
    return Path(tempfile.gettempdir()) / f"ctxplan-{card.uuid}.lock"


@contextmanager
def claimed(file: Path, what: str) -> Iterator[None]:
    """Keep other workers off, to the end of the block or of this process, however it ends. The file stays.

    Args:
        what: is claimed, for the message.

    Raises:
        CardTaken: another worker has it. WorkerError: the file cannot be locked.
    """
    try:
        fd = _opened(file)
    except OSError as error:
        raise WorkerError(f"{file}: cannot be locked: {reason_of(error)}") from None
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 100, 0).decode(errors="replace").strip()
            raise CardTaken(f"{what} is taken by another worker{f', {holder}' if holder else ''}") from None
        with suppress(OSError):  # another user's file, or a full disk: the lock holds all the same, without a name
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"process {os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)


def _opened(file: Path) -> int:
    """A descriptor to lock. Where another user made the file, one to read it by is enough, and all that may be had."""
    try:
        return os.open(file, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except PermissionError:
        return os.open(file, os.O_RDONLY | os.O_CLOEXEC)
