"""What the pages of tiers and calibrations draw: runs beside their estimates, and residuals as dots on a line."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import median
from typing import Any, NamedTuple

from app.page.words import human
from ctxplan.calibration_summary import summary
from estimator.calibration.document import Calibration

LINEAR = 0.0005
"""Errors below this share lie on a linear scale, those above on a logarithmic one: most are tiny, a few are not."""

TICKS = (-0.1, -0.01, -0.001, 0.0, 0.001, 0.01, 0.1)
WORST = 0.3
LEFT, RIGHT = 4.0, 96.0


class Dot(NamedTuple):
    """One measured point. ``x``: percent of the plot's width."""

    error: float
    x: float


class Stratum(NamedTuple):
    """The points of one path and kind of job. ``bound``: the margin at 95 %, None where the points are too few."""

    path: str
    kind: str
    dots: tuple[Dot, ...]
    median: float
    worst: float
    bound: float | None
    bound_x: float | None


class ErrorPlot(NamedTuple):
    """All strata, with the axis that they share."""

    ticks: tuple[Dot, ...]
    strata: tuple[Stratum, ...]


class Measure(NamedTuple):
    """A number of a run as a bar. ``width``: percent of the card."""

    title: str
    bytes: int
    width: float
    key: str


def error_plot(calibration: Calibration) -> ErrorPlot:
    """The residuals (measured over expected allocated peak less one, families left out) of every path and kind."""
    bounds = {one["stratum"]: one["margins"]["0.95"] for one in summary(calibration)["bounds"]}
    names = [name for name in sorted(calibration.residuals) if name.count("/") == 1]
    ticks = tuple(Dot(error, place(error)) for error in TICKS)
    return ErrorPlot(ticks, tuple(_stratum(name, calibration.residuals[name], bounds[name]) for name in names))


def place(error: float) -> float:
    """Where an error lies: percent of the plot's width, symmetric around no error."""
    most = math.log1p(WORST / LINEAR)
    share = math.copysign(math.log1p(min(abs(error), WORST) / LINEAR), error) / most
    return round(LEFT + (RIGHT - LEFT) * (share + 1) / 2, 3)


def measures_of(evidence: Mapping[str, Any], total_bytes: int) -> tuple[Measure, ...]:
    """A tier's run: what was expected, its bound, and what was measured, as bars on its card; each says
    which counter it is of."""
    found = (
        ("Expected peak, allocated", evidence["estimate"]["expected"], "expected"),
        ("Upper bound, allocated", evidence["estimate"]["upper"], "margin"),
        ("Measured peak, allocated", evidence["peak_allocated_bytes"], "measured"),
        ("Measured peak, reserved", evidence["peak_reserved_bytes"], "reserved"),
        ("Measured in use on the device", evidence["device_used_bytes"], "reserved"),
    )
    return tuple(
        Measure(title, size, round(100 * size / total_bytes, 2), key) for title, size, key in found if size is not None
    )


def calibration_to_json(calibration: Calibration) -> dict[str, Any]:
    """A calibration's summary, and the residuals that its plot shows."""
    return {**summary(calibration), "residuals": {name: list(all_) for name, all_ in calibration.residuals.items()}}


def _stratum(name: str, residuals: tuple[float, ...], bound: float | None) -> Stratum:
    path, _, kind = name.partition("/")
    return Stratum(
        path=path,
        kind=human(kind),
        dots=tuple(Dot(error, place(error)) for error in residuals),
        median=median(residuals),
        worst=max(residuals, key=abs),
        bound=bound,
        bound_x=None if bound is None else place(bound),
    )
