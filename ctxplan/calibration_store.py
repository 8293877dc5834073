"""Calibrations that were made here: immutable documents in a directory, and which of them is active.

    sha256-….json        one calibration, named for its content and checked against its name whenever it is read
    activations.jsonl    {"at", "id", "why"}, one line each; the last is the active one. Lines are added, never changed
    drift.jsonl          what `ctxplan calibrate status` found beyond the bound
    measurements/        the rows that the calibrations were fitted to, NAME.jsonl of each, and any file put there

The directory is ``CTXPLAN_CALIBRATIONS``, or ``ctxplan/calibrations`` in the user's data directory. Without it, or with
no activation in it, the shipped calibration is the active one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ctxplan.calibration_keeping import (
    SHIPPED,
    Activation,
    NothingToRollBack,
    Stored,
    StoreUnavailable,
    UnknownCalibration,
)
from ctxplan.calibrations import shipped
from ctxplan.shared_files import append_lines, content_of, locked, whole_lines, write_whole
from estimator.calibration.document import Calibration, calibration_to_json, read_calibration
from estimator.errors import CalibrationError, CtxplanError
from estimator.rules import shown

VARIABLE = "CTXPLAN_CALIBRATIONS"
PREFIX = "sha256-"
LEAST_DIGITS = 4
MAX_DOCUMENT_BYTES = 2**26
_ID = re.compile(rf"(?:{PREFIX})?([0-9a-f]{{{LEAST_DIGITS},64}})")


def default_folder(environment: Mapping[str, str] | None = None) -> Path:
    """Where calibrations are kept unless something else is said."""
    environment = os.environ if environment is None else environment
    if named := environment.get(VARIABLE):
        return Path(named)
    data = environment.get("XDG_DATA_HOME") or os.path.expanduser("~/.local/share")
    return Path(data) / "ctxplan" / "calibrations"


def before_active(ids: Iterable[str]) -> str | None:
    """What a rollback makes active, of the activated ids, oldest first; None where nothing was active before.

    To go back to the one before takes the last activation back, by whatever command: what was left so is not come
    back to, so that two rollbacks go two steps back.
    """
    stack = [SHIPPED]
    for id in ids:
        if id == stack[-1]:
            continue
        if len(stack) > 1 and id == stack[-2]:
            stack.pop()
        else:
            stack.append(id)
    return stack[-2] if len(stack) > 1 else None


class FileStore:
    """A `CalibrationStore` in a directory, which is made with the first calibration.

    Several processes may use it at once. Errors of the operating system are StoreUnavailable, which names the file.
    """

    def __init__(self, folder: Path | None = None, *, shipped: Callable[[], Calibration] = shipped) -> None:
        self.folder = default_folder() if folder is None else folder
        self._shipped = shipped

    @property
    def activations_file(self) -> Path:
        return self.folder / "activations.jsonl"

    @property
    def drift_file(self) -> Path:
        return self.folder / "drift.jsonl"

    def put(self, calibration: Calibration) -> bool:
        """A document that is here under this name and is not this content is replaced by what the name promises."""
        file = self.file_of(calibration.id)
        if calibration.id == self._shipped().id:
            return False
        with suppress(UnknownCalibration, CalibrationError):
            self._read(file)
            return False
        document = calibration_to_json(calibration)
        if document["id"] != calibration.id:
            raise CalibrationError("is not the id of this content", key="id")
        text = json.dumps(document, separators=(",", ":"), sort_keys=True) + "\n"
        with _naming(file, "written"):
            write_whole(file, text.encode())
        return True

    def get(self, id: str) -> Calibration:
        found = self.find(id)
        return self._shipped() if found == SHIPPED else self._read(self.file_of(found))

    def find(self, id: str) -> str:
        """The whole id that an abbreviation stands for, or ``shipped``. Raises UnknownCalibration."""
        allowed = f"the first {LEAST_DIGITS} or more digits of an id that ctxplan calibrate list shows, or {SHIPPED}"
        if id == SHIPPED:
            return id
        wanted = _ID.fullmatch(id)
        if wanted is None:
            raise UnknownCalibration(f"{shown(id)} is no id of a calibration", key="id", allowed=allowed)
        known = {**{name: name for name in self._names()}, self._shipped().id: SHIPPED}
        found = [name for name in known if name.startswith(PREFIX + wanted[1])]
        if len(found) > 1:
            several = ", ".join(name[: len(PREFIX) + 12] for name in sorted(found))
            raise UnknownCalibration(f"{shown(id)} begins the ids of {len(found)}: {several}", key="id")
        if not found:
            raise UnknownCalibration(f"{shown(id)} is no calibration in {self.folder}", key="id", allowed=allowed)
        return known[found[0]]

    def list(self) -> Sequence[Stored]:
        found = [self._stored(name) for name in self._names()]
        found.sort(key=lambda one: (one.stored_at or datetime.min.replace(tzinfo=UTC), one.id), reverse=True)
        calibration = self._shipped()
        return (*found, Stored(id=calibration.id, stored_at=None, calibration=calibration))

    def activate(self, id: str, *, why: str, at: datetime) -> Activation:
        found = self.find(id)
        self.get(found)
        with self._appending() as append:
            return append(found, why, at)

    def active(self) -> Calibration:
        id = self.active_id()
        if id == SHIPPED:
            return self._shipped()
        try:
            return self._read(self.file_of(id))
        except UnknownCalibration:
            raise CalibrationError(
                f"{self.file_of(id)}: the active calibration is gone",
                key="calibration",
                allowed="ctxplan calibrate rollback, or activate another",
            ) from None

    def active_id(self) -> str:
        """The id of the active one, or ``shipped``."""
        history = self.history()
        return history[-1].id if history else SHIPPED

    def history(self) -> Sequence[Activation]:
        file = self.activations_file
        with _naming(file, "read"):
            content = content_of(file)
        return tuple(_activation(file, number, line) for number, line in enumerate(whole_lines(content), 1))

    def rollback(self, *, why: str, at: datetime) -> Activation:
        with self._appending() as append:
            before = before_active(one.id for one in self.history())
            if before is None:
                raise NothingToRollBack(f"nothing was active before in {self.folder}")
            if before != SHIPPED:
                self._read(self.file_of(before))
            return append(before, why, at)

    def file_of(self, id: str) -> Path:
        """Where the document of a whole id is kept."""
        return self.folder / f"{id}.json"

    def stored_at(self, id: str) -> datetime | None:
        """When a calibration came here, by its file; None for what is not here."""
        try:
            return datetime.fromtimestamp(self.file_of(id).stat().st_mtime, UTC)
        except OSError:
            return None

    def keep_measurements(self, id: str, documents: Iterable[Mapping[str, Any]]) -> None:
        """Keep the rows that a calibration was fitted to, so that it can be compared and watched."""
        file = self.folder / "measurements" / f"{id}.jsonl"
        lines = [json.dumps(one, separators=(",", ":")) for one in documents]
        with _naming(file, "written"):
            write_whole(file, "".join(line + "\n" for line in lines).encode())

    def measurement_files(self, *ids: str) -> Sequence[Path]:
        """The files of measurements that are kept, or those of some calibrations."""
        files = sorted((self.folder / "measurements").glob("*.jsonl"))
        return [file for file in files if not ids or file.stem in ids]

    def measurements(self, *ids: str) -> Sequence[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for file in self.measurement_files(*ids):
            with _naming(file, "read"):
                lines = [line for line in content_of(file).splitlines() if line.strip()]
            found += [_object(file, number, line) for number, line in enumerate(lines, 1)]
        return found

    def note_drift(self, documents: Iterable[Mapping[str, Any]]) -> None:
        """Add findings to ``drift.jsonl``; one that is there already (but for its time) is not added again."""
        found = [*documents]
        if not found:
            return
        with _naming(self.drift_file, "written"), locked(self.drift_file) as fd:
            known = {_timeless(one) for one in self.drift()}
            new = [json.dumps(one, separators=(",", ":")) + "\n" for one in found if _timeless(one) not in known]
            append_lines(fd, "".join(new).encode())

    def drift(self, calibration: str | None = None) -> Sequence[dict[str, Any]]:
        """Findings that were noted, oldest first; of one calibration, by its id."""
        with _naming(self.drift_file, "read"):
            lines = whole_lines(content_of(self.drift_file))
        found = [_object(self.drift_file, number, line) for number, line in enumerate(lines, 1)]
        return [one for one in found if calibration in (None, one.get("calibration"))]

    def _names(self) -> Sequence[str]:
        with _naming(self.folder, "read"):
            try:
                found = os.listdir(self.folder)
            except FileNotFoundError:
                return ()
        return [name[:-5] for name in found if re.fullmatch(rf"{PREFIX}[0-9a-f]{{64}}\.json", name)]

    def _stored(self, name: str) -> Stored:
        try:
            return Stored(id=name, stored_at=self.stored_at(name), calibration=self._read(self.file_of(name)))
        except CtxplanError as error:
            return Stored(id=name, stored_at=self.stored_at(name), calibration=None, fault=str(error))

    def _read(self, file: Path) -> Calibration:
        """Raises UnknownCalibration where there is no such file, CalibrationError where it is not what it is called."""
        try:
            with file.open("rb") as opened:
                body = opened.read(MAX_DOCUMENT_BYTES + 1)
        except FileNotFoundError:
            raise UnknownCalibration(f"{file}: there is no such calibration", key="id") from None
        except OSError as error:
            raise CalibrationError(f"{file}: cannot be read: {error.strerror or error}") from None
        if len(body) > MAX_DOCUMENT_BYTES:
            raise CalibrationError(f"{file}: larger than a calibration", allowed=f"{MAX_DOCUMENT_BYTES} bytes")
        try:
            calibration = read_calibration(json.loads(body))
        except CalibrationError as error:
            raise CalibrationError(f"{file}: {error}") from None
        except (ValueError, RecursionError):
            raise CalibrationError(f"{file}: is not JSON: the document was changed") from None
        if file.stem != calibration.id:
            raise CalibrationError(f"{file}: is the document of {calibration.id}")
        return calibration

    @contextmanager
    def _appending(self) -> Iterator[Callable[[str, str, datetime], Activation]]:
        """What adds an activation, while no other process does."""
        file = self.activations_file
        with _naming(file, "written"), locked(file) as fd:

            def append(id: str, why: str, at: datetime) -> Activation:
                activation = Activation(at=timestamp(at), id=id, why=why)
                append_lines(fd, json.dumps(activation.to_json(), separators=(",", ":")).encode() + b"\n")
                return activation

            yield append


def timestamp(at: datetime) -> str:
    """ISO 8601 in UTC, to the second."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextmanager
def _naming(file: Path, what: str) -> Iterator[None]:
    """An error of the operating system as one of ours, which names the file."""
    try:
        yield
    except OSError as error:
        raise StoreUnavailable(f"{file}: cannot be {what}: {error.strerror or error}") from None


def _object(file: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CalibrationError(f"{file}: line {number} is no JSON object: the file was changed")
    return found


def _activation(file: Path, number: int, line: bytes) -> Activation:
    found = _object(file, number, line)
    at, id, why = (found.get(key) for key in ("at", "id", "why"))
    named = isinstance(id, str) and (id == SHIPPED or re.fullmatch(rf"{PREFIX}[0-9a-f]{{64}}", id))
    if not (named and isinstance(at, str) and isinstance(why, str)):
        raise CalibrationError(f"{file}: line {number} is no activation: the file was changed")
    return Activation(at=at, id=str(id), why=why)


def _timeless(document: Mapping[str, Any]) -> str:
    return json.dumps({key: value for key, value in document.items() if key != "at"}, sort_keys=True)
