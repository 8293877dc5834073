"""One worker for a GPU, and one for a spool: a lock on a file, which ends with the process that has it.

The file of a GPU lies in a folder that is the same for every user and every environment of the machine, whatever
``TMPDIR`` says: two workers that look in different folders would share the card. Everybody may write there, and so the
file is opened without following a link, is its user's alone (mode 0600), and is refused where it is anything else. It
is removed when the worker ends, so that the next may be another user's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from probes.files import reason_of
from probes.nvml import Card
from probes.worker.errors import CardTaken, WorkerError

FOLDER = Path("/tmp")  # noqa: S108 -- what may lie there is refused
"""Of the locks of GPUs."""


def lock_of(card: Card) -> Path:
    """The file that stands for a card: the same for every user of this machine."""
    return FOLDER / f"ctxplan-{card.uuid}.lock"


@contextmanager
def claimed(file: Path, what: str) -> Iterator[None]:
    """Keep other workers off, to the end of the block or of this process, however it ends.

    Args:
        what: is claimed, for the message.

    Raises:
        CardTaken: another worker has it. WorkerError: the file cannot be locked, or is no regular file of this user.
    """
    fd = _locked(file, what)
    try:
        with suppress(OSError):  # a full disk: the lock holds all the same, without a name
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"process {os.getpid()}\n".encode(), 0)
        yield
    finally:
        with suppress(OSError):
            if _is_still(file, fd):
                file.unlink()  # while it is locked: whoever has opened it already finds that it is gone
        os.close(fd)


def _locked(file: Path, what: str) -> int:
    """A descriptor of the file that lies there, locked."""
    while True:
        try:
            fd = _opened(file)
        except OSError as error:
            raise WorkerError(f"{file}: cannot be locked: {reason_of(error)}") from None
        try:
            _check(file, os.fstat(fd))
            with suppress(PermissionError):  # on a network disk that gives us another name
                os.fchmod(fd, 0o600)  # one that was left open to others could be locked by them
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(file, fd):
                return fd
        except BlockingIOError:
            holder = os.pread(fd, 100, 0).decode(errors="replace").strip()
            os.close(fd)
            raise CardTaken(f"{what} is taken by another worker{f', {holder}' if holder else ''}") from None
        except OSError as error:
            os.close(fd)
            raise WorkerError(f"{file}: cannot be locked: {reason_of(error)}") from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # its worker has ended meanwhile, and taken the file with it


def _opened(file: Path) -> int:
    """A descriptor of the file, which is made where there is none. Raises WorkerError for what is no file of ours."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    while True:
        with suppress(FileNotFoundError):
            try:
                return os.open(file, flags)
            except OSError as error:
                if error.errno in (errno.ELOOP, errno.EACCES, errno.EISDIR, errno.ENXIO):
                    _check(file, file.lstat())
                raise
        with suppress(FileExistsError):
            return os.open(file, flags | os.O_CREAT | os.O_EXCL, 0o600)


def _check(file: Path, found: os.stat_result) -> None:
    """Raise WorkerError for what somebody else may have put there, to be locked or overwritten in its place."""
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        wrong = "is no regular file with one name"
    elif found.st_uid != os.geteuid() and file.parent.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        # In a folder of this user alone it is ours, whoever a network disk says that we are.
        wrong = f"is not of this user, but of user {found.st_uid}"
    else:
        return
    raise WorkerError(f"{file}: cannot be locked: it {wrong}", allowed="to remove it, where no worker has it open")


def _is_still(file: Path, fd: int) -> bool:
    """Whether the file of this name is the one that was opened."""
    try:
        there, opened = file.lstat(), os.fstat(fd)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (opened.st_dev, opened.st_ino)
