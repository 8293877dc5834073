"""Where documents come from: text, JSON Lines, Parquet, Arrow and saved datasets, each read row by row.

A source gives rows that are not looked at yet, and turns one into its columns when it is asked to, so that a row that
is none can be named, or left out, without the reading coming to an end.
"""

from __future__ import annotations

import json
import sys
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, Protocol

from app.tokens.streams import open_stream
from ctxplan.token_lengths import DocumentsError
from estimator.rules import shorten, shown

SampleBy = Literal["line", "paragraph", "document"]
"""What of a text file is one document; the words are those of ``datasets``' own text loader."""

TEXT = (".txt", ".text", ".md")
JSON_LINES = (".jsonl", ".ndjson", ".json")
PARQUET = (".parquet",)
ARROW = (".arrow",)
COMPRESSED = (".gz", ".zst")
FORMATS = (
    "a text file (.txt, .md), JSON Lines (.jsonl, .ndjson, .json), either of them as .gz or .zst, .parquet, .arrow, "
    "or the directory of a dataset's save_to_disk"
)
STANDARD_INPUT = "-"


class BadRow(Exception):
    """A row that holds no document, and why."""


class Source(Protocol):
    """One file of documents.

    Attributes:
        name: as the file was named. size_bytes: on the disk, 0 where that is not known.
        is_text: the rows are documents as they are, without columns.
    """

    name: str
    size_bytes: int
    is_text: bool

    def peek(self) -> Mapping[str, Any] | None:
        """The first row of a table, whose columns can be read apart; None of what is read whole anyway."""

    def rows(self, columns: tuple[str, ...] | None) -> Iterator[tuple[int, Any]]:
        """Each row with its number, from 1 (in a text file or JSON Lines: its line).

        columns: the only ones that are needed, None for all. Raises DocumentsError where the file cannot be read.
        """

    def parse(self, row: Any) -> Any:
        """A row as the document itself, or as its columns. Raises BadRow."""

    def where(self, number: int) -> str:
        """What a message calls a row."""

    def done_bytes(self) -> int:
        """How far the reading has come, of `size_bytes`."""


class _Stream:
    """What text and JSON Lines have in common: bytes, perhaps compressed, read line by line."""

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == STANDARD_INPUT else path
        self._path = path
        self._done_bytes = 0
        self.size_bytes = 0 if path == STANDARD_INPUT else Path(path).stat().st_size

    def peek(self) -> None:
        """Its rows are read whole."""

    @contextmanager
    def _lines(self) -> Iterator[Iterator[bytes]]:
        with readable(self.name):
            if self._path == STANDARD_INPUT:
                if sys.stdin is None:
                    raise OSError("it is closed")
                yield iter(sys.stdin.buffer)
                return
            with Path(self._path).open("rb", buffering=0) as raw, open_stream(self._path, raw) as stream:
                yield self._counted(raw, stream)

    def _counted(self, raw: Any, stream: BinaryIO) -> Iterator[bytes]:
        for index, line in enumerate(stream):
            if not index & 255:
                self._done_bytes = raw.tell()
            yield line

    def done_bytes(self) -> int:
        return self._done_bytes

    def where(self, number: int) -> str:
        return f"{self.name}:{number}"


class JsonLines(_Stream):
    """One JSON object a line; lines of white space alone are none."""

    is_text = False

    def rows(self, columns: tuple[str, ...] | None) -> Iterator[tuple[int, bytes]]:
        with self._lines() as lines:
            for number, line in enumerate(lines, 1):
                if number == 1:
                    line = self._first(line)
                if not line.isspace():
                    yield number, line

    def _first(self, line: bytes) -> bytes:
        line = line.removeprefix(b"\xef\xbb\xbf")
        if line.lstrip().startswith(b"["):
            message = f"{self.name}: holds a JSON array, which cannot be read row by row"
            raise DocumentsError(message, allowed="one JSON object a line (jq -c '.[]' writes that)")
        return line

    def parse(self, row: bytes) -> Mapping[str, Any]:
        try:
            value = json.loads(row.decode())
        except UnicodeDecodeError:
            raise BadRow("is not UTF-8") from None
        except json.JSONDecodeError as error:
            raise BadRow(f"is no JSON object: {error.msg} at column {error.colno}") from None
        except (RecursionError, ValueError):  # nesting, or digits, without end
            raise BadRow("is no JSON object that can be read") from None
        if not isinstance(value, dict):
            raise BadRow(f"is no JSON object but {shown(value)}")
        return value


class TextFile(_Stream):
    """Documents of plain text: each line, each paragraph (set apart by blank lines), or the whole file.

    Lines without a character are no documents. A line keeps no line end; a paragraph and a file keep theirs inside.
    """

    is_text = True

    def __init__(self, path: str, sample_by: SampleBy) -> None:
        super().__init__(path)
        self._sample_by = sample_by

    def rows(self, columns: tuple[str, ...] | None) -> Iterator[tuple[int, bytes]]:
        with self._lines() as lines:
            if self._sample_by == "line":
                yield from ((number, line) for number, line in enumerate(lines, 1) if not line.isspace())
            elif self._sample_by == "paragraph":
                yield from _paragraphs(lines)
            else:
                whole = b"".join(lines)
                if whole:
                    yield 1, whole

    def parse(self, row: bytes) -> str:
        try:
            text = row.decode("utf-8-sig")
        except UnicodeDecodeError:
            raise BadRow("is not UTF-8") from None
        return text if self._sample_by == "document" else text.rstrip("\r\n")


def _paragraphs(lines: Iterator[bytes]) -> Iterator[tuple[int, bytes]]:
    first = 0
    held: list[bytes] = []
    for number, line in enumerate(lines, 1):
        if not line.isspace():
            first = first if held else number
            held.append(line)
        elif held:
            yield first, b"".join(held)
            held = []
    if held:
        yield first, b"".join(held)


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Say by the file's name what keeps it from being read. Raises DocumentsError."""
    try:
        yield
    except (OSError, EOFError, zlib.error) as error:  # the last two: of a compressed file that is cut, or damaged
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise DocumentsError(f"{name}: cannot be read: {shorten(reason, 200)}") from None
