"""What torch reserves beyond what it has allocated, from points whose card had room."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import sparse
from scipy.optimize import linprog

from estimator.calibration.document import Fragmentation
from probes.errors import FitError
from probes.fitting.observations import Observation
from probes.fitting.residuals import rounded_up

ENOUGH_POINTS = 6
"""Fewer say nothing of a constant: all is then a share."""
MIB = 2**20


class Point(NamedTuple):
    """Bytes of one point, and its model's family. ``moving``: of the allocated peak, what does not rest between the
    steps."""

    family: str
    reserved: int
    allocated: int
    moving: int


def fit_fragmentation(observed: Iterable[Observation]) -> dict[str, Fragmentation]:
    """Share and constant of each path, of each kind of run on it, and of tiled MLPs apart.

    The sum of the relative errors' absolute values is least, neither number negative (a linear programme): one point
    that fragments unlike the others moves nothing.
    """
    points: dict[str, list[Point]] = defaultdict(list)
    for one in observed:
        reserved = one.measured.peak_reserved_bytes
        if not reserved or not one.has_room:
            continue
        point = Point(one.family, reserved, one.peak_bytes, max(one.peak_bytes - one.simulated().resting_bytes, 0))
        tiled = one.prepared.run.job.unsloth_tiled_mlp
        for key in (f"{one.path}/tiled",) if tiled else (one.path, f"{one.path}/{one.kind}"):
            points[key].append(point)
    return {key: fragmentation_of(found) for key, found in points.items()}


def fragmentation_of(points: Sequence[Point]) -> Fragmentation:
    """Share and constant of some points, and their residuals; too few give no constant.

    A point's residual, measured over expected less one, is by the fit without its family, so that the bound which is
    made of them holds for a family that nobody has measured. Points of a single family have but their own fit.
    """
    share, constant = _least_absolute(points)
    residuals: list[float] = []
    for family in sorted({point.family for point in points}):
        others = [point for point in points if point.family != family]
        by = _least_absolute(others) if others else (share, constant)
        residuals += [_residual(point, *by) for point in points if point.family == family]
    return Fragmentation(share, constant, tuple(sorted(residuals)))


def _residual(point: Point, share: float, constant: int) -> float:
    return rounded_up(point.reserved / (point.allocated + int(point.moving * share) + constant) - 1, 6)


def _least_absolute(points: Sequence[Point]) -> tuple[float, int]:
    """The share, rounded, and the constant in bytes, by whole MiB."""
    reserved = np.array([point.reserved for point in points], dtype=float)
    moving = np.array([point.moving for point in points]) / reserved
    gap = np.array([point.reserved - point.allocated for point in points]) / reserved
    constants = MIB / reserved if len(points) >= ENOUGH_POINTS else np.zeros(len(points))
    errors = sparse.identity(len(points))
    columns = sparse.csr_array(np.column_stack([moving, constants]))
    solved = linprog(
        np.concatenate([np.zeros(2), np.ones(len(points))]),
        A_ub=sparse.block_array([[columns, -errors], [-columns, -errors]]).tocsr(),
        b_ub=np.concatenate([gap, -gap]),
        bounds=(0, None),
    )
    if not solved.success:
        raise FitError(f"the fragmentation of {len(points)} points cannot be fitted: {solved.message}")
    return round(float(solved.x[0]), 4), round(float(solved.x[1])) * MIB
