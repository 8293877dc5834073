"""Files that several processes keep together: written whole or not at all, and lines that are only added to."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_whole(file: Path, content: bytes) -> None:
    """Write a file that is there as a whole or not at all, whatever happens. Raises OSError."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as opened:
            opened.write(content)
            opened.flush()
            os.fsync(opened.fileno())
        temporary.replace(file)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def locked(file: Path) -> Iterator[int]:
    """A descriptor that appends to a file, while no other process has one; the lock ends with the process.

    Raises:
        OSError: the file cannot be opened, or this is no POSIX system (Windows only reads such files).
    """
    try:
        import fcntl
    except ImportError:
        raise OSError(errno.ENOTSUP, "this system has no file locks") from None
    file.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


def append_lines(fd: int, lines: bytes) -> None:
    """Add whole lines in one write, or nothing. What a killed writer left of a line nobody was told of, and it goes.

    Raises:
        OSError: the disk is full, among others; the file is as it was.
    """
    size = os.fstat(fd).st_size
    content = os.pread(fd, size, 0)
    whole = content.rfind(b"\n") + 1
    if whole != size:
        os.ftruncate(fd, whole)
    written = os.write(fd, lines)
    if written != len(lines):  # the disk is full: a part of a line says nothing
        os.ftruncate(fd, whole)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    os.fsync(fd)


def content_of(file: Path) -> bytes:
    """What is in a file; nothing where there is none. Raises OSError."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def whole_lines(content: bytes) -> list[bytes]:
    """Lines that were written to their end."""
    return content[: content.rfind(b"\n") + 1].splitlines()
