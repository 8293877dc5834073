"""What a fit leaves over on points of families that it has not seen, by stratum."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from estimator.calibration.bound import strata
from estimator.calibration.document import STRUCTURAL
from probes.fitting.coefficients import fit_coefficients
from probes.fitting.observations import Observation


def cross_fitted(observed: Sequence[Observation]) -> list[tuple[Observation, float]]:
    """Each observation with its residual: measured over expected peak less one, by the fit without its family."""
    found = []
    for family in sorted({one.family for one in observed}):
        without = fit_coefficients([one for one in observed if one.family != family])
        mine = [one for one in observed if one.family == family]
        found += residuals_of(mine, without)
    return found


def residuals_of(
    observed: Iterable[Observation], coefficients: dict[str, dict[str, float]]
) -> list[tuple[Observation, float]]:
    """Measured over expected allocated peak less one, with given coefficients."""
    calibration = replace(STRUCTURAL, corrections=coefficients)
    return [(one, one.peak_bytes / one.simulated(calibration).peak.allocated_bytes - 1) for one in observed]


def rounded_up(residual: float, digits: int) -> float:
    """So few digits, and never less: rounding takes no point from under a bound that is made of it."""
    scale = float(10**digits)
    return math.ceil(residual * scale) / scale


def by_stratum(residuals: Iterable[tuple[Observation, float]]) -> dict[str, tuple[float, ...]]:
    """Ascending residuals of every stratum, the coarser ones holding those of the finer."""
    found: dict[str, list[float]] = defaultdict(list)
    for one, residual in residuals:
        for name in strata(one.path, one.kind, one.checkpointing, one.device):
            found[name].append(rounded_up(residual, 7))
    return {name: tuple(sorted(values)) for name, values in found.items()}
