"""What a calibration is, in a few numbers that a person can take in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ctxplan.calibration_keeping import SHIPPED, Stored
from ctxplan.calibration_store import timestamp
from estimator.calibration.bound import conformal_margin
from estimator.calibration.document import Calibration

CONFIDENCES = (0.95, 0.99)


def summary(calibration: Calibration) -> dict[str, Any]:
    """The calibration as plain JSON values, its residuals as the bounds that they give.

    ``bounds`` has for each stratum how many points there are, and the margin over the expected allocated peak at each
    confidence; null where the points are too few for it (n points bound at most n / (n + 1)).
    """
    return {
        "id": calibration.id,
        "points": calibration.points,
        "gpus": list(calibration.gpus),
        "versions": {name: list(found) for name, found in sorted(calibration.versions.items())},
        "measured": {
            path: {
                "families": sorted(one.families),
                "tokens": list(one.tokens),
                "hidden_size": list(one.hidden_size),
                "num_hidden_layers": list(one.num_hidden_layers),
            }
            for path, one in sorted(calibration.measured.items())
        },
        "corrections": {key: dict(widths) for key, widths in sorted(calibration.corrections.items())},
        "bounds": [_bound(name, residuals) for name, residuals in sorted(calibration.residuals.items())],
    }


def listed(stored: Iterable[Stored], active: str) -> list[dict[str, Any]]:
    """The calibrations of a store as plain JSON values, in its order.

    Args:
        active: the id of the active one, or ``shipped``.
    """
    return [
        {
            "id": one.id,
            "points": one.calibration.points if one.calibration else None,
            "gpus": list(one.calibration.gpus) if one.calibration else [],
            "stored_at": timestamp(one.stored_at) if one.stored_at else None,
            "active": active in ((SHIPPED, one.id) if one.stored_at is None else (one.id,)),
            "shipped": one.stored_at is None,
            "fault": one.fault,
        }
        for one in stored
    ]


def _bound(stratum: str, residuals: tuple[float, ...]) -> dict[str, Any]:
    margins = {}
    for confidence in CONFIDENCES:
        margin, thin = conformal_margin(residuals, confidence)
        margins[f"{confidence:g}"] = None if thin else margin
    return {"stratum": stratum, "points": len(residuals), "largest": residuals[-1], "margins": margins}
