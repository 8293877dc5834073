"""The answers about calibrations, key for key as the service's OpenAPI document states them."""

from __future__ import annotations

from typing import Any, TypedDict


class Named(TypedDict):
    """A calibration, as every answer names it."""

    id: str
    points: int


class ListedCalibration(TypedDict):
    """One calibration of the list; ``fault`` is why its document cannot be read."""

    id: str
    points: int | None
    gpus: list[str]
    stored_at: str | None
    active: bool
    shipped: bool
    fault: str | None


class Listing(TypedDict):
    """A page of calibrations; ``next`` is what to give as ``after`` for the next one, None on the last."""

    items: list[ListedCalibration]
    next: str | None


class MeasuredRange(TypedDict):
    """What the rows of one path covered; each range is least and most."""

    families: list[str]
    tokens: list[int]
    hidden_size: list[int]
    num_hidden_layers: list[int]


class Bound(TypedDict):
    """The margins over the expected allocated peak of a stratum, by confidence."""

    stratum: str
    points: int
    largest: float
    margins: dict[str, float | None]


class CalibrationAnswer(Named):
    """What a calibration is from, its coefficients (multiples of widths) and its bounds."""

    gpus: list[str]
    versions: dict[str, list[str]]
    measured: dict[str, MeasuredRange]
    corrections: dict[str, dict[str, float]]
    bounds: list[Bound]


class Errors(TypedDict):
    """How a calibration answers some points: errors are expected over measured less one."""

    middle: float
    worst: float
    covered: float
    margin: float


class ErrorGroup(TypedDict):
    """Points of one path and kind of model, as two calibrations answer them."""

    name: str
    points: int
    before: Errors
    after: Errors


class FittedAnswer(CalibrationAnswer):
    """The calibration that was fitted, beside the one that was active; ``new`` is whether it was not there before."""

    new: bool
    before: Named
    errors: list[ErrorGroup]


class ActivationAnswer(TypedDict):
    """That a calibration (or ``shipped``) was made the active one."""

    at: str
    id: str
    why: str


class ActivatedAnswer(TypedDict):
    """The calibration that answers from now on."""

    calibration: Named
    activation: ActivationAnswer


class ChangedVersion(TypedDict):
    """A package whose version no row of the calibration had."""

    package: str
    old: list[str]
    new: str


class DriftFinding(TypedDict):
    """Points beyond the bound at 99 %: of which stratum and versions, and the error of the worst."""

    at: str
    calibration: str
    changed: list[ChangedVersion]
    stratum: str
    side: str
    points: int
    beyond: list[str]
    error: float
    bound: float


class ActiveAnswer(CalibrationAnswer):
    """The calibration that every answer is made with."""

    shipped: bool
    activation: ActivationAnswer | None
    drift: list[DriftFinding]


class ComparisonAnswer(TypedDict):
    """Two calibrations side by side; the errors are on the measurements that are kept of both."""

    before: Named
    after: Named
    differences: dict[str, Any]
    errors: list[ErrorGroup]
