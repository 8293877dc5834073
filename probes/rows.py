"""The measurements of a file, each checked against the schema."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from probes.errors import EvidenceError
from probes.files import read_documents
from probes.measurement import Measurement, validate


def read_measurements(path: Path) -> list[Measurement]:
    """Read a file of JSON lines; none where there is no file yet.

    Raises:
        EvidenceError: it cannot be read, or a document is no measurement; the message has its number and key.
    """
    rows = []
    for number, document in enumerate(read_documents(path), start=1):
        try:
            rows.append(validate(document))
        except ValidationError as error:
            fault = error.errors()[0]
            key = ".".join(str(part) for part in fault["loc"])
            raise EvidenceError(f"{path}: document {number}: {key}: {fault['msg']}") from None
    return rows
