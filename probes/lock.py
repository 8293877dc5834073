"""One writer at a time for a file that is filled for hours."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from probes.errors import EvidenceError
from probes.files import reason_of


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Keep others who call this off a file, to the end of the block or of this process, however it ends.

    The lock is on a file beside it, since the file itself is replaced with every line. A kill leaves that file,
    unlocked, to the next who comes.

    Raises:
        EvidenceError: another holds it, who is named; or nothing can be locked there.
    """
    file = path.resolve().with_name(f".{path.resolve().name}.lock")
    try:
        fd = _locked(path, file)
    except OSError as error:
        raise EvidenceError(f"{path}: cannot be locked: {reason_of(error)}") from None
    try:
        with suppress(OSError):  # on a full disk the lock holds all the same, without a name
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(fd)


def _locked(path: Path, file: Path) -> int:
    """A locked descriptor of the file that has the name now: whoever held it before may have removed it meanwhile."""
    while True:
        fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _has_the_name(fd, file):
                return fd
            os.close(fd)
        except BlockingIOError:
            holder = os.pread(fd, 300, 0).decode(errors="replace") or "another process"
            os.close(fd)
            raise EvidenceError(f"{path}: is being written by {holder}") from None
        except BaseException:
            os.close(fd)
            raise


def _has_the_name(fd: int, file: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), file.stat())
    except FileNotFoundError:
        return False
