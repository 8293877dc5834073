"""Measurements from parsed JSON, and from files, as `probes.fitting.fit` takes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import ctxplan
from probes.errors import EvidenceError
from probes.measurement import Measurement, validate
from probes.rows import read_measurements

EVIDENCE = Path(ctxplan.__file__).resolve().parent.parent / "evidence" / "measurements"
"""The committed rows of a checkout; a wheel has none."""


def read_rows(data: Any, *, most: int | None = None, key: str = "measurements") -> list[Measurement]:
    """The measurements of a JSON array.

    Args:
        most: how many may be given. key: how the array is called, for the errors.

    Raises:
        EvidenceError: it is no array, has none or too many, or one is no measurement; the key says which.
    """
    if not isinstance(data, list) or not data or (most is not None and len(data) > most):
        raise EvidenceError("is no array of measurements", key=key, allowed=f"1 to {most}" if most else "1 or more")
    return [read_row(document, f"{key}[{number}]") for number, document in enumerate(data)]


def read_row(document: Any, key: str) -> Measurement:
    """One measurement. Raises EvidenceError; the key says where in the caller's document it stands."""
    if not isinstance(document, Mapping):
        raise EvidenceError("is no measurement", key=key, allowed="what ctxplan probe --json prints")
    try:
        return validate(document)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join([key, *(str(part) for part in fault["loc"])])
        raise EvidenceError(str(fault["msg"]), key=where) from None
    except (KeyError, TypeError) as error:
        raise EvidenceError(f"is no measurement: {type(error).__name__} {error}", key=key) from None


def read_files(files: Iterable[Path]) -> list[Measurement]:
    """The measurements of some files of JSON lines.

    Raises:
        EvidenceError: one is not there, cannot be read or has no measurement, or a line is none.
    """
    rows = []
    for file in files:
        if not file.is_file():
            raise EvidenceError(f"{file}: there is no such file of measurements")
        found = read_measurements(file)
        if not found:
            raise EvidenceError(f"{file}: has no measurement")
        rows += found
    return rows


def committed_rows() -> list[Measurement]:
    """The rows that the shipped calibration was made from. Raises EvidenceError where this is no checkout."""
    files = sorted(EVIDENCE.glob("*.jsonl"))
    if not files:
        raise EvidenceError(
            "the committed measurements are only in a checkout of ctxplan: there is no " + str(EVIDENCE)
        )
    return read_files(files)


def documents_of(rows: Iterable[Measurement]) -> list[dict[str, Any]]:
    """The measurements as plain JSON values."""
    return [row.model_dump(mode="json") for row in rows]
