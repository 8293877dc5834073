"""The measurements of a file, each checked against the schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from probes.errors import EvidenceError
from probes.files import read_documents
from probes.measurement import Measurement, validate


def read_measurements(path: Path) -> list[Measurement]:
    """Read a file of JSON lines; none where there is no file yet.

    Raises:
        EvidenceError: it cannot be read, or a document is no measurement; the message has its number and key.
    """
    return [_measurement(path, number, one) for number, one in enumerate(read_documents(path), start=1)]


def read_confirmation(path: Path) -> tuple[list[Measurement], str]:
    """The measurements of a tier's file (`probes.tiers.document`), and the command that made them.

    Raises:
        EvidenceError: it cannot be read, or is none.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EvidenceError(f"{path}: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("measurements"), list):
        raise EvidenceError(f"{path}: is no confirmation of a tier: it has no measurements")
    rows = [_measurement(path, number, one) for number, one in enumerate(found["measurements"], start=1)]
    return rows, str(found.get("command"))


def _measurement(path: Path, number: int, document: Any) -> Measurement:
    try:
        return validate(document)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        raise EvidenceError(f"{path}: document {number}: {key}: {fault['msg']}") from None
