"""From what was named to the files that are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from stat import S_ISDIR

from app.tokens.sources import (
    ARROW,
    COMPRESSED,
    FORMATS,
    JSON_LINES,
    PARQUET,
    STANDARD_INPUT,
    TEXT,
    JsonLines,
    SampleBy,
    Source,
    TextFile,
    readable,
)
from app.tokens.tables import ArrowFile, ParquetFile, saved_dataset
from ctxplan.token_lengths import DocumentsError


def find_sources(names: Sequence[str], *, split: str | None = None, sample_by: SampleBy = "line") -> list[Source]:
    """The files to read, in order.

    Args:
        names: files, directories that ``save_to_disk`` wrote, or ``-`` for JSON Lines on standard input.
        split: the only one to read of a dict of datasets. sample_by: what of a text file is one document.

    Raises:
        DocumentsError: one is not there, cannot be read, or is of no known format.
    """
    if split is not None and not any(name != STANDARD_INPUT and _is_directory(name) for name in names):
        raise DocumentsError("only a saved dataset has splits", key="split", allowed="leave it out")
    return [source for name in names for source in _sources(name, split, sample_by)]


def _sources(name: str, split: str | None, sample_by: SampleBy) -> Sequence[Source]:
    if name == STANDARD_INPUT:
        return [JsonLines(name)]
    path = Path(name)
    if _is_directory(name):
        return saved_dataset(path, split)
    kind, compressed = _kind(path)
    if kind in JSON_LINES:
        return [JsonLines(name)]
    if kind in TEXT:
        return [TextFile(name, sample_by)]
    if kind in PARQUET and not compressed:
        return [ParquetFile(name)]
    if kind in ARROW and not compressed:
        return [ArrowFile(name)]
    raise DocumentsError(f"{name}: is of no known format", allowed=FORMATS)


def _is_directory(name: str) -> bool:
    """Raises DocumentsError where nothing is there."""
    with readable(name):
        return S_ISDIR(Path(name).stat().st_mode)


def _kind(path: Path) -> tuple[str, bool]:
    """The ending that says what a file holds, and whether another one says that it is compressed."""
    compressed = path.suffix.lower() in COMPRESSED
    named = Path(path.stem) if compressed else path
    return named.suffix.lower(), compressed
