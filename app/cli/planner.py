"""The planner of the command line: it answers with the calibration that is active on this machine."""

from __future__ import annotations

import typer

from ctxplan import Planner
from ctxplan.calibration_keeping import StoreUnavailable
from ctxplan.calibration_store import FileStore
from estimator.calibration.document import Calibration


def planner(*, offline: bool) -> Planner:
    """A planner with the active calibration, which each of its answers names.

    Raises:
        CalibrationError: the active calibration's document is gone or was changed; nothing is answered by another.
    """
    return Planner(offline=offline, calibration=active_calibration())


def active_calibration() -> Calibration | None:
    """The active calibration; None, and a word on standard error, where the directory of calibrations cannot be read:
    then the shipped one answers."""
    try:
        return FileStore().active()
    except StoreUnavailable as error:
        typer.echo(f"ctxplan: the shipped calibration is used: {error}", err=True)
        return None
