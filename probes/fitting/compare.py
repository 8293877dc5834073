"""Two calibrations side by side: what differs in the documents, and how each answers measured points."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from estimator.calibration.document import Calibration
from probes.comparison import Row
from probes.fitting.judge import Judged, coverage, judge
from probes.fitting.observations import Observation, observations
from probes.measurement import Measurement

CONFIDENCE = 0.95
TOGETHER = "together"


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """How a calibration answers some points.

    Attributes:
        middle: median of the absolute error of the allocated peak. worst: the largest, signed, positive where too
            much is expected. covered: the share of points whose measured peak is not above the bound at 95 %. margin:
            how far that bound lies above what was measured, in the median.
    """

    middle: float
    worst: float
    covered: float
    margin: float

    def to_json(self) -> dict[str, float]:
        return {"middle": self.middle, "worst": self.worst, "covered": self.covered, "margin": self.margin}


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Points of one path and kind of model (``PATH/KIND``), or all of them, as two calibrations answer them."""

    name: str
    points: int
    before: Errors
    after: Errors

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "points": self.points,
            "before": self.before.to_json(),
            "after": self.after.to_json(),
        }


def observed(measurements: Iterable[Measurement]) -> list[Observation]:
    """What can be judged: one observation a point and stack, the newest. See `observations`."""
    rows = sorted(measurements, key=lambda one: one.measured_at or "")
    newest = {(one.point, tuple(sorted(one.stack.items()))): one for one in rows}
    return observations(Row(measured=one) for one in newest.values())


def errors_of(points: Sequence[Observation], before: Calibration, after: Calibration) -> tuple[Group, ...]:
    """The errors of two calibrations on the same points, of each path and kind and of all; none without points."""
    judged = [
        judge(points, before, confidence=CONFIDENCE),
        judge(points, after, confidence=CONFIDENCE),
    ]
    groups: dict[str, list[tuple[Judged, Judged]]] = defaultdict(list)
    for one, other in zip(*judged, strict=True):
        for name in (f"{one.one.path}/{one.one.kind}", TOGETHER):
            groups[name].append((one, other))
    names = sorted(groups, key=lambda name: (name == TOGETHER, name))
    return tuple(_group(name, groups[name]) for name in names)


def differences(before: Calibration, after: Calibration) -> dict[str, Any]:
    """What differs in the documents, as plain JSON values: coefficients, versions, cards, points, and how many
    residuals each stratum has."""
    return {
        "points": [before.points, after.points],
        "shared_points": len(set(before.digests) & set(after.digests)),
        "gpus": [list(before.gpus), list(after.gpus)],
        "versions": _changed(before.versions, after.versions, list),
        "corrections": _changed(_flat(before), _flat(after), float),
        "residuals": _changed(before.residuals, after.residuals, len),
    }


def _group(name: str, pairs: Sequence[tuple[Judged, Judged]]) -> Group:
    before, after = ([pair[side] for pair in pairs] for side in (0, 1))
    return Group(name=name, points=len(pairs), before=_errors(before), after=_errors(after))


def _errors(judged: Sequence[Judged]) -> Errors:
    return Errors(
        middle=median(abs(one.error) for one in judged),
        worst=max((one.error for one in judged), key=abs),
        covered=coverage(judged),
        margin=median(one.margin for one in judged),
    )


def _flat(calibration: Calibration) -> dict[str, float]:
    return {
        f"{key}/{width}": multiple
        for key, widths in calibration.corrections.items()
        for width, multiple in widths.items()
    }


def _changed(before: Mapping[str, Any], after: Mapping[str, Any], show: Any) -> dict[str, list[Any]]:
    """What the two do not have alike: key -> the one's and the other's, null where it has none."""
    keys = sorted(before.keys() | after.keys())
    pairs = {key: [show(side[key]) if key in side else None for side in (before, after)] for key in keys}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
