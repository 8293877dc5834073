"""A user's own calibration: fitted to exactly the rows that were given, with no family left out unless asked."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from estimator.calibration.document import Calibration
from estimator.rules import shown
from probes.errors import FitError
from probes.fitting.compare import observed
from probes.fitting.fit import fit
from probes.measurement import Measurement


def fit_own(rows: Sequence[Measurement], *, leave_out: Collection[str] = ()) -> Calibration:
    """Fit a calibration.

    Args:
        leave_out: families, by ``model_type``, that are kept for judging.

    Raises:
        FitError: none of the rows can be fitted, or a family that is to be left out is in none.
    """
    for number, row in enumerate(rows):
        if row.outcome == "ok" and row.gpu is not None and not row.peak_allocated_bytes:
            raise FitError("ended well and took nothing", key=f"measurements[{number}].peak_allocated_bytes")
    families = {one.family for one in observed(rows)}
    for family in leave_out:
        if family not in families:
            raise FitError(
                f"{shown(family)} is the family of no row", key="leave_out", allowed=", ".join(sorted(families)) or None
            )
    try:
        return fit(rows, leave_out=lambda family: family in leave_out)
    except (ArithmeticError, ValueError) as error:  # bytes that no card has
        raise FitError(f"these measurements cannot be fitted: {error}", key="measurements") from None
