"""Files of measurements that survive a kill at any instant: written whole beside the old one, then put in its place."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from probes.errors import EvidenceError

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_json(path: Path, document: Any) -> None:
    """Write one JSON document, indented.

    Raises:
        EvidenceError: the file cannot be written; what was there before stays.
    """
    with _refusing(path, "written"), _alone_in(path.resolve().parent):
        _replace(path.resolve(), json.dumps(document, indent=2).encode() + b"\n")


def append_document(path: Path, document: Any) -> None:
    """Add one document to a file of JSON lines, which is there before and after as a whole.

    Writers in other processes wait for each other. A pipe or a device is written as it is.

    Raises:
        EvidenceError: the file cannot be read or written; what was there before stays.
    """
    line = json.dumps(document, separators=(",", ":")).encode() + b"\n"
    if _is_special(path):
        with _refusing(path, "written"):
            _write_through(path, line)
        return
    with _refusing(path, "written"), _alone_in(path.resolve().parent):
        before = _content(path)
        if before and not before.endswith(b"\n"):
            before += b"\n"
        _replace(path.resolve(), before + line)


def read_documents(path: Path) -> list[dict[str, Any]]:
    """The documents of a file of JSON lines; none where there is no file yet. Empty lines are passed over.

    Raises:
        EvidenceError: it cannot be read, or a line is not a JSON object; the message has the line's number.
    """
    with _refusing(path, "read"):
        lines = _content(path).splitlines()
    return [_document(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def check_writable(path: Path, *, read_again: bool = False) -> None:
    """Raise EvidenceError where a file could not be written, before hours are spent on what goes into it.

    Args:
        read_again: it is also where a later run finds what is done, which no pipe and no device can be.
    """
    folder = path.resolve().parent
    if path.is_dir():
        raise EvidenceError(f"{path}: cannot be written: it is a folder")
    if not folder.is_dir():
        raise EvidenceError(f"{path}: cannot be written: there is no folder {folder}")
    if path.exists() and not os.access(path, os.W_OK):
        raise EvidenceError(f"{path}: cannot be written: no permission")
    if _is_special(path):
        if read_again:
            raise EvidenceError(f"{path}: is no file that can be read again")
        return
    # Whether the folder takes a file is known only when it has: root may write everywhere, but not in /proc.
    with _refusing(path, "written"), _alone_in(folder):
        temporary = _beside(path.resolve())
        _write_beside(temporary, b"")
        temporary.unlink()


def reason_of(error: OSError) -> str:
    """An operating system's error in a few words, a full disk always in the same ones."""
    return "no space left on the device" if error.errno in NO_SPACE else error.strerror or str(error)


@contextmanager
def _refusing(path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise EvidenceError(f"{path}: cannot be {what}: {reason_of(error)}") from None


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which needs no file of its own and ends with the process."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _document(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except ValueError as error:
        raise EvidenceError(f"{path}: line {number} is not JSON: {error}") from None
    if not isinstance(document, Mapping):
        raise EvidenceError(f"{path}: line {number} is not a JSON object")
    return dict(document)


def _replace(path: Path, content: bytes) -> None:
    """Put the content in the file's place. Under the folder's lock, so the temporary name is nobody else's."""
    temporary = _beside(path)
    try:
        _write_beside(temporary, content)
        if path.exists():
            os.chmod(temporary, path.stat().st_mode & 0o777)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _is_special(path: Path) -> bool:
    """Whether it is there, and neither a file nor a folder: a pipe, a terminal, /dev/null."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _write_through(path: Path, content: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
    try:
        _write_all(fd, content)
    finally:
        os.close(fd)


def _write_beside(temporary: Path, content: bytes) -> None:
    """Write a file that has no name until it is whole, where the file system can: a kill leaves nothing of it."""
    temporary.unlink(missing_ok=True)
    folder = os.open(temporary.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _write_unnamed(folder, temporary.name, content)
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        _write_to(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), content)
    finally:
        os.close(folder)


def _write_unnamed(folder: int, name: str, content: bytes) -> None:
    fd = os.open(".", os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o666, dir_fd=folder)
    # With a dir_fd Python calls linkat, which alone follows the link in /proc.
    _write_to(fd, content, lambda: os.link(f"/proc/self/fd/{fd}", name, dst_dir_fd=folder, follow_symlinks=True))


def _write_to(fd: int, content: bytes, when_whole: Callable[[], None] = lambda: None) -> None:
    try:
        _write_all(fd, content)
        os.fsync(fd)
        when_whole()
    finally:
        os.close(fd)


def _write_all(fd: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):  # some file systems sync no folder; the file itself is safe
            os.fsync(fd)
    finally:
        os.close(fd)
