"""What keeps calibrations, whoever does: the protocol of a store, what it holds, and what can be wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from estimator.calibration.document import Calibration
from estimator.errors import CtxplanError

SHIPPED = "shipped"
"""What an activation of the shipped calibration names: the one of whichever release reads it."""


class UnknownCalibration(CtxplanError):
    """No calibration here has that id, or several begin so."""

    code = "unknown-calibration"


class NothingToRollBack(CtxplanError):
    """The shipped calibration is active, and none was before it."""

    code = "nothing-to-roll-back"


class StoreUnavailable(CtxplanError):
    """The store's directory cannot be read or written; the message names the file and why."""

    code = "calibration-store-unavailable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One calibration of the store.

    Attributes:
        id: its whole id. stored_at: when it came here; None for the shipped one. calibration: None where the document
            cannot be read as what its name says, and then ``fault`` says why.
    """

    id: str
    stored_at: datetime | None
    calibration: Calibration | None
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """That a calibration was made the active one: its id (or ``shipped``), when (ISO 8601 in UTC), and why."""

    at: str
    id: str
    why: str

    def to_json(self) -> dict[str, str]:
        return {"at": self.at, "id": self.id, "why": self.why}


class CalibrationStore(Protocol):
    """Where calibrations are kept. Ids may be abbreviated to the first digits of the hash; ``shipped`` is one."""

    def put(self, calibration: Calibration) -> bool:
        """Keep a calibration. False where it was here already."""

    def get(self, id: str) -> Calibration:
        """One of them. Raises UnknownCalibration; CalibrationError where its document was changed."""

    def list(self) -> Sequence[Stored]:
        """All of them, the newest first and the shipped one last; broken ones with their fault."""

    def activate(self, id: str, *, why: str, at: datetime) -> Activation:
        """Make one the active one. Raises as `get`."""

    def active(self) -> Calibration:
        """The active one. Raises CalibrationError where its document is gone or was changed."""

    def history(self) -> Sequence[Activation]:
        """Every activation, oldest first."""

    def rollback(self, *, why: str, at: datetime) -> Activation:
        """Make the one active that was before the active one. Raises NothingToRollBack, and as `get`."""

    def keep_measurements(self, id: str, documents: Iterable[Mapping[str, Any]]) -> None:
        """Keep the rows that a calibration was fitted to, so that it can be compared and watched."""

    def measurements(self, *ids: str) -> Sequence[dict[str, Any]]:
        """The rows that are kept, of some calibrations or of all, as they were given."""

    def drift(self, calibration: str | None = None) -> Sequence[dict[str, Any]]:
        """Findings of drift that were noted, oldest first; of one calibration, by its id."""
