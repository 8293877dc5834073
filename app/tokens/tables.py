"""Documents in tables: Parquet files, Arrow files, and the directories that ``datasets`` saves."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from app.tokens.sources import readable
from app.tokens.streams import BUFFER_BYTES, need_pyarrow
from ctxplan.token_lengths import DocumentsError
from estimator.rules import shorten, shown

BATCH_BYTES = 2**21
MOST_ROWS = 4096
"""Rows that are held as Python values at once; fewer where rows are long."""


class _Table(ABC):
    is_text = False

    def __init__(self, path: str) -> None:
        self.name = path
        with readable(path):
            self.size_bytes = Path(path).stat().st_size
        self._pyarrow = need_pyarrow(path)
        self._done_bytes = 0

    @abstractmethod
    def _batches(self, columns: tuple[str, ...] | None, most_rows: int) -> Iterator[Any]:
        """Record batches of at most so many rows, or of the wanted columns that are there."""

    def peek(self) -> Mapping[str, Any] | None:
        """The first row, None of an empty table. Raises DocumentsError."""
        with self._readable(), closing(self._batches(None, 1)) as batches:  # type: ignore[type-var]
            return next((row for batch in batches for row in batch.slice(0, 1).to_pylist()), None)

    def rows(self, columns: tuple[str, ...] | None) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Each row with its number. Raises DocumentsError."""
        number = 0
        with self._readable():
            for batch in self._batches(columns, MOST_ROWS):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row

    def parse(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """A row is its columns already."""
        return row

    def where(self, number: int) -> str:
        return f"{self.name}: row {number}"

    def done_bytes(self) -> int:
        return self._done_bytes

    @contextmanager
    def _readable(self) -> Iterator[None]:
        """pyarrow's errors, too, become one line with the file's name."""
        with readable(self.name):
            try:
                yield
            except (self._pyarrow.ArrowException, ValueError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise DocumentsError(f"{self.name}: cannot be read: {shorten(reason, 200)}") from None


class ParquetFile(_Table):
    """A Parquet file, read a few rows at a time within its row groups."""

    def _batches(self, columns: tuple[str, ...] | None, most_rows: int) -> Iterator[Any]:
        import pyarrow.parquet

        with pyarrow.parquet.ParquetFile(self.name, pre_buffer=False, buffer_size=BUFFER_BYTES) as file:
            total, done = max(file.metadata.num_rows, 1), 0
            wanted = _present(columns, file.schema_arrow.names)
            for index in range(file.metadata.num_row_groups):
                group = file.metadata.row_group(index)
                rows = _rows_at_once(group.total_byte_size, group.num_rows, most_rows)
                for batch in file.iter_batches(rows, row_groups=[index], columns=wanted):
                    yield batch
                    done += batch.num_rows
                    self._done_bytes = self.size_bytes * done // total


class ArrowFile(_Table):
    """An Arrow file as ``datasets`` writes it (a stream), or one with a footer; one record batch is held at a time."""

    def _batches(self, columns: tuple[str, ...] | None, most_rows: int) -> Iterator[Any]:
        # Read, not mapped: mapped pages would count as this process's memory.
        with closing(self._pyarrow.OSFile(self.name)) as file:
            for whole in self._whole_batches(file):
                wanted = _present(columns, whole.schema.names)
                batch = whole if wanted is None else whole.select(wanted)
                rows = _rows_at_once(batch.nbytes, batch.num_rows, most_rows)
                for start in range(0, batch.num_rows, rows):
                    yield batch.slice(start, rows)
                self._done_bytes = file.tell()

    def _whole_batches(self, file: Any) -> Iterator[Any]:
        import pyarrow.ipc

        has_footer = file.read(6) == b"ARROW1"
        file.seek(0)
        if has_footer:
            reader = pyarrow.ipc.open_file(file)
            batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
        else:
            batches = iter(pyarrow.ipc.open_stream(file))
        for batch in batches:
            # Offsets are taken as the file has them: unless they are looked at, wrong ones read memory that is not its.
            batch.validate(full=True)
            yield batch


def _present(columns: tuple[str, ...] | None, names: list[str]) -> list[str] | None:
    """The wanted columns that are there; a row then says by name what it lacks."""
    return None if columns is None else [name for name in names if name in columns]


def _rows_at_once(size_bytes: int, rows: int, most_rows: int) -> int:
    each_bytes = max(size_bytes // max(rows, 1), 1)
    return max(1, min(most_rows, BATCH_BYTES // each_bytes))


def saved_dataset(directory: Path, split: str | None) -> list[ArrowFile]:
    """The files of a dataset, or of a dict of datasets, that ``save_to_disk`` wrote.

    Source: datasets 4.8, ``arrow_dataset.py`` ``save_to_disk`` (``state.json``, ``_data_files``) and
    ``dataset_dict.json`` (``splits``).

    Raises:
        DocumentsError: the directory is none, or has no such split.
    """
    splits_file = directory / "dataset_dict.json"
    if splits_file.is_file():
        splits = _listed(splits_file, "splits")
        if split is not None and split not in splits:
            raise DocumentsError(f"{directory} has no split {shown(split)}", key="split", allowed=", ".join(splits))
        return [file for name in splits if split in (None, name) for file in _files(directory / name)]
    files = _files(directory)
    if split is not None and _state(directory).get("_split") != split:
        own = _state(directory).get("_split")
        raise DocumentsError(f"{directory} has no splits; it is {shown(own)}", key="split", allowed="leave it out")
    return files


def _files(directory: Path) -> list[ArrowFile]:
    state = _state(directory)
    try:
        names = [str(entry["filename"]) for entry in state["_data_files"]]
    except (KeyError, TypeError):
        raise DocumentsError(f"{directory / 'state.json'}: lists no data files") from None
    for name in names:
        if Path(name).name != name or not (directory / name).is_file():
            raise DocumentsError(f"{directory}: its state.json lists {shown(name)}, which is not in it")
    return [ArrowFile(str(directory / name)) for name in names]


def _state(directory: Path) -> Mapping[str, Any]:
    file = directory / "state.json"
    if not file.is_file():
        allowed = "a directory that a dataset's save_to_disk wrote, or the files themselves"
        raise DocumentsError(f"{directory}: is a directory without a state.json or dataset_dict.json", allowed=allowed)
    return _object(file)


def _listed(file: Path, key: str) -> list[str]:
    names = _object(file).get(key)
    if not isinstance(names, list) or not all(isinstance(n, str) and Path(n).name == n for n in names):
        raise DocumentsError(f"{file}: lists no {key}")
    return names


def _object(file: Path) -> Mapping[str, Any]:
    with readable(str(file)):
        try:
            value = json.loads(file.read_bytes())
        except ValueError:
            value = None
    if not isinstance(value, dict):
        raise DocumentsError(f"{file}: is no JSON object")
    return value
