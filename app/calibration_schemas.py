"""The answers and bodies of ``/v1/calibrations``, as the OpenAPI document states them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from app.calibrations import BODY, WHY
from app.schemas import Count


def _body(rules: Any, required: list[str]) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {key: rule.schema() for key, rule in rules.items()},
        "required": required,
        "additionalProperties": False,
    }
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


FIT_BODY = _body(BODY, ["measurements"])
ACTIVATION_BODY = _body(WHY, [])


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Named(_Answer):
    """A calibration, as every answer names it."""

    id: str
    points: Count


class ListedCalibration(_Answer):
    """One calibration of the list. ``fault``: why its document cannot be read; then the rest is not known."""

    id: str
    points: Count | None
    gpus: list[str]
    stored_at: str | None
    active: bool
    shipped: bool
    fault: str | None


class Listing(_Answer):
    """A page of calibrations; ``next`` is what to give as ``after`` for the next one, null on the last."""

    items: list[ListedCalibration]
    next: str | None


class MeasuredRange(_Answer):
    """What the rows of one path covered; each range is least and most."""

    families: list[str]
    tokens: list[Count]
    hidden_size: list[Count]
    num_hidden_layers: list[Count]


class Bound(_Answer):
    """The margins over the expected allocated peak of a stratum, by confidence; null where its points are too few."""

    stratum: str
    points: Count
    largest: float
    margins: dict[str, float | None]


class CalibrationAnswer(Named):
    """What a calibration is from, its coefficients (multiples of widths) and its bounds."""

    gpus: list[str]
    versions: dict[str, list[str]]
    measured: dict[str, MeasuredRange]
    corrections: dict[str, dict[str, float]]
    bounds: list[Bound]


class Errors(_Answer):
    """How a calibration answers some points: errors are expected over measured less one."""

    middle: float
    worst: float
    covered: float
    margin: float


class ErrorGroup(_Answer):
    """Points of one path and kind of model, or all of them together, as two calibrations answer them."""

    name: str
    points: Count
    before: Errors
    after: Errors


class FittedAnswer(CalibrationAnswer):
    """The calibration that was fitted, beside the one that was active. ``new``: whether it was not here before."""

    new: bool
    before: Named
    errors: list[ErrorGroup]


class ActivationAnswer(_Answer):
    """That a calibration (or ``shipped``) was made the active one."""

    at: str
    id: str
    why: str


class ActivatedAnswer(_Answer):
    """The calibration that answers from now on."""

    calibration: Named
    activation: ActivationAnswer


class ChangedVersion(_Answer):
    """A package whose version no row of the calibration had."""

    package: str
    old: list[str]
    new: str


class DriftFinding(_Answer):
    """Points beyond the bound at 99 %: of which stratum and versions, and the error of the worst."""

    at: str
    calibration: str
    changed: list[ChangedVersion]
    stratum: str
    side: str
    points: Count
    beyond: list[str]
    error: float
    bound: float


class ActiveAnswer(CalibrationAnswer):
    """The calibration that every answer is made with."""

    shipped: bool
    activation: ActivationAnswer | None
    drift: list[DriftFinding]


class ComparisonAnswer(_Answer):
    """Two calibrations side by side; the errors are on the measurements that are kept of both."""

    before: Named
    after: Named
    differences: dict[str, Any]
    errors: list[ErrorGroup]
