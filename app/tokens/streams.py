"""A file's bytes, decompressed as they are read."""

from __future__ import annotations

import gzip
import io
from contextlib import AbstractContextManager
from importlib.util import find_spec
from typing import Any, BinaryIO

from ctxplan.token_lengths import DocumentsError

BUFFER_BYTES = 2**20


def open_stream(path: str, raw: Any) -> AbstractContextManager[BinaryIO]:
    """The bytes of an open file, decompressed by what its name ends in. Raises DocumentsError."""
    if path.lower().endswith(".gz"):
        return io.BufferedReader(gzip.GzipFile(fileobj=raw), BUFFER_BYTES)
    if path.lower().endswith(".zst"):
        return _zstandard(path, raw)
    return io.BufferedReader(raw, BUFFER_BYTES)


def need_pyarrow(name: str) -> Any:
    """pyarrow, which only some formats need. Raises DocumentsError where it is not installed."""
    if find_spec("pyarrow") is None:
        raise DocumentsError(f"{name}: reading it needs pyarrow", allowed='pip install "ctxplan[tokens]"')
    import pyarrow

    return pyarrow


def _zstandard(path: str, raw: Any) -> AbstractContextManager[BinaryIO]:
    pyarrow = need_pyarrow(path)
    stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, mode="r"), "zstd")
    return io.BufferedReader(_Raw(stream), BUFFER_BYTES)


class _Raw(io.RawIOBase):
    """pyarrow's stream, whose own line iterator does not exist, as Python reads one."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()
