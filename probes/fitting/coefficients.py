"""Fits how many tensors of each width are alive beyond what the structure counts.

For a path, a group of instants and a kind of model the unknowns are multiples of the widths. Each measured part of a
step whose widest instant lies in the group gives one equation: measured less structural bytes. They are solved as
ridge regression in relative error, pulled towards the structure (multiples of zero), under the bound that no width is
counted less than not at all (scipy.optimize.lsq_linear).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import lsq_linear

from estimator.calibration.document import STRUCTURAL, WIDTHS, Calibration
from estimator.estimate import Phase
from estimator.phases import simulate
from probes.fitting.observations import Observation

NOISE = 0.005
"""Relative error of a part that the structure gets right: what allocator and kernels leave to chance."""

PULL = 0.5
"""How far, in multiples of a width, a coefficient is expected to lie from the structure."""

BETTER = 0.9
"""Coefficients are kept where they leave at most so much of the squared error on what they were not fitted to."""

LEAST = 0.005
"""Multiples below which a coefficient is left out."""

ROUNDS = 4
"""The widest instant can change with the coefficients; so often are they fitted again."""

FIELDS = {"hidden": "u", "mlp": "m", "attention": "q", "key_value": "kv"}
NAMED_ROWS = {
    "routed": frozenset({"routed_rows"}),
    "expert": frozenset({"expert_gate_up", "expert_bias_rows"}),
    "logits": frozenset({"logits"}),
}
"""Widths as `estimator.sizes.Sizes` has them, and rows of the ledger that are multiples of the others."""

Key = tuple[str, str, str]
"""Path, group of instants, kind of model."""


class Equation(NamedTuple):
    """One measured part of a step.

    Attributes:
        missing: bytes that the structure misses. widths: bytes of each. least: how many tensors of each width the
            structure counts, and so may be taken away. measured: bytes of the whole part. family: of its model.
    """

    missing: int
    widths: Mapping[str, int]
    least: Mapping[str, float]
    measured: int
    family: str


def fit_coefficients(observed: Sequence[Observation]) -> dict[str, dict[str, float]]:
    """``PATH/GROUP/KIND`` -> width -> multiples beyond the structure."""
    fitted: dict[str, dict[str, float]] = {}
    rows = [one for one in observed if one.has_coefficients]
    for _ in range(ROUNDS):
        equations: dict[Key, list[Equation]] = defaultdict(list)
        calibration = replace(STRUCTURAL, corrections=fitted)
        for one in rows:
            for key, equation in _equations(one, calibration):
                equations[key].append(equation)
        fitted = {"/".join(key): solved for key, found in equations.items() if (solved := solve(found))}
    kept = {"/".join(key) for key, found in equations.items() if is_better(found)}
    return {key: solved for key, solved in fitted.items() if key in kept}


def is_better(equations: Sequence[Equation]) -> bool:
    """Whether coefficients say more than the structure of what they were not fitted to.

    Each family is expected by the fit to the others; where there is one family, each point by the fit to the others.
    """
    families = sorted({one.family for one in equations})
    folds = (
        [[i for i, one in enumerate(equations) if one.family == family] for family in families]
        if len(families) > 1
        else [[i] for i in range(len(equations))]
    )
    without, with_them = 0.0, 0.0
    for fold in folds:
        solved = solve([one for i, one in enumerate(equations) if i not in fold])
        for i in fold:
            without += (equations[i].missing / equations[i].measured) ** 2
            with_them += (_left(equations[i], solved) / equations[i].measured) ** 2
    return with_them < BETTER * without


def _left(equation: Equation, solved: Mapping[str, float]) -> float:
    return equation.missing - sum(multiple * equation.widths.get(width, 0) for width, multiple in solved.items())


def solve(equations: Sequence[Equation]) -> dict[str, float]:
    """The multiples of some equations with common unknowns; none where all are negligible."""
    names = [name for name in WIDTHS if any(one.widths.get(name) for one in equations)]
    if not names:
        return {}
    scale = np.array([1 / (NOISE * one.measured) for one in equations])
    matrix = np.array([[one.widths.get(name, 0) for name in names] for one in equations], dtype=float)
    wanted = np.array([one.missing for one in equations], dtype=float)
    pull = np.eye(len(names)) / PULL
    bounds = np.array([-min(one.least.get(name, 0.0) for one in equations) - 1e-9 for name in names])
    solved = lsq_linear(
        np.vstack([matrix * scale[:, None], pull]),
        np.concatenate([wanted * scale, np.zeros(len(names))]),
        bounds=(bounds, np.full(len(names), np.inf)),
    )
    return {name: round(float(value), 4) for name, value in zip(names, solved.x, strict=True) if abs(value) >= LEAST}


def _equations(one: Observation, calibration: Calibration) -> Iterable[tuple[Key, Equation]]:
    simulation = one.simulated(calibration)
    peaks = {phase.phase: phase for phase in simulation.peaks}
    parts = (
        (one.measured.forward_peak_bytes, [peaks[name] for name in ("forward", "loss") if name in peaks]),
        (one.measured.backward_peak_bytes, [peaks["backward"]]),
    )
    for measured, phases in parts:
        if measured:
            widest = max(phases, key=lambda phase: phase.allocated_bytes)
            key = (one.path, group_of_phase(widest), one.kind)
            missing = measured - _structural_bytes(widest)
            yield key, Equation(missing, one.widths, _counted(one, widest), measured, one.family)


def group_of_phase(phase: Phase) -> str:
    """Whose coefficients the widest instant of a phase takes."""
    return "loss" if "loss" in (phase.phase, phase.instant) else phase.phase


def _structural_bytes(phase: Phase) -> int:
    return sum(row[1] for row in phase.rows if not row[0].startswith("calibrated_"))


def _counted(one: Observation, phase: Phase) -> dict[str, float]:
    """How many tensors of each width the structure counts in a phase: what a coefficient may take away."""
    counted = {name: _multiples(one, phase, field) for name, field in FIELDS.items()}
    for name, rows in NAMED_ROWS.items():
        size = sum(row[1] for row in phase.rows if row[0] in rows)
        counted[name] = size / one.widths[name] if one.widths.get(name) else 0.0
    return counted


def _multiples(one: Observation, phase: Phase, field: str) -> float:
    """Bytes that a phase needs for each byte of a width: its finite difference in that width."""
    run, statics = one.prepared
    wider = one.z._replace(**{field: 2 * getattr(one.z, field)})
    peaks = {found.phase: found for found in simulate(run, statics, wider).peaks}
    more = _structural_bytes(peaks[phase.phase]) - _structural_bytes(phase)
    return max(more / getattr(one.z, field), 0.0) if getattr(one.z, field) else 0.0
