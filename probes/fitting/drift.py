"""Drift: new measurements beyond the bound of a calibration, and which versions changed meanwhile.

The bound is that of the calibration for its own versions, at 99 %: a version that was not measured widens the bound
of an answer, and is here what is looked for. A peak as far below what is expected as the bound lies above counts too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from estimator.calibration.bound import strata
from estimator.calibration.document import Calibration
from estimator.calibration.evidence import DECISIVE
from estimator.stack import MEASURED_STACK
from probes.fitting.compare import observed
from probes.fitting.judge import Judged, judge
from probes.fitting.observations import Observation
from probes.measurement import Measurement

CONFIDENCE = 0.99


class Change(NamedTuple):
    """A package whose version no row of the calibration had: the calibration's versions, and the new one."""

    package: str
    old: tuple[str, ...]
    new: str

    def __str__(self) -> str:
        return f"{self.package} {', '.join(self.old) or 'none'} -> {self.new}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """New points of one stratum and one set of versions, some of them beyond the bound.

    Attributes:
        changed: versions that no fitted row had; none where the stack is the calibration's. stratum: path, kind,
            checkpointing mode and card. side: whether more was needed than the bound allows, or less than expected by
            as much. points: how many there are. beyond: the digests of those beyond. error: measured over expected
            peak less one, of the worst. bound: the margin that it was held to.
    """

    calibration: str
    changed: tuple[Change, ...]
    stratum: str
    side: Literal["above", "below"]
    points: int
    beyond: tuple[str, ...]
    error: float
    bound: float

    def to_json(self) -> dict[str, Any]:
        return {
            "calibration": self.calibration,
            "changed": [{"package": one.package, "old": list(one.old), "new": one.new} for one in self.changed],
            "stratum": self.stratum,
            "side": self.side,
            "points": self.points,
            "beyond": list(self.beyond),
            "error": round(self.error, 6),
            "bound": round(self.bound, 6),
        }


def find_drift(measurements: Iterable[Measurement], calibration: Calibration) -> list[Drift]:
    """What lies beyond the bound of a calibration, the worst first; nothing where all is as expected.

    Rows that cannot be judged (see `probes.fitting.observations.observations`) say nothing.
    """
    groups: dict[tuple[tuple[Change, ...], str], list[Judged]] = defaultdict(list)
    for one in judge(observed(measurements), calibration, confidence=CONFIDENCE):
        groups[changes(one.one, calibration), stratum_of(one.one)].append(one)
    found = [
        drift
        for (changed, stratum), judged in groups.items()
        for side in ("above", "below")
        if (drift := _drift(calibration, changed, stratum, side, judged))
    ]
    return sorted(found, key=lambda one: -abs(one.error))


def changes(one: Observation, calibration: Calibration) -> tuple[Change, ...]:
    """The packages that decide memory whose version is none of the calibration's."""
    found = []
    for name in DECISIVE:
        old = calibration.versions.get(name) or tuple(filter(None, [MEASURED_STACK[name]]))
        new = (one.measured.stack.get(name) or "none").partition("+")[0]
        if new != "none" and new not in old:
            found.append(Change(name, old, new))
    return tuple(found)


def stratum_of(one: Observation) -> str:
    """The finest stratum of an observation."""
    return strata(one.path, one.kind, one.checkpointing, one.device)[0]


def residual_of(judged: Judged) -> float:
    """Measured over expected peak less one: positive where more was needed."""
    return judged.one.peak_bytes / judged.answer.allocated.expected - 1


def margin_of(judged: Judged) -> float:
    """The margin that an answer's bound allows."""
    return judged.answer.allocated.upper / judged.answer.allocated.expected - 1


def _drift(
    calibration: Calibration,
    changed: tuple[Change, ...],
    stratum: str,
    side: Literal["above", "below"],
    judged: Sequence[Judged],
) -> Drift | None:
    sign = 1 if side == "above" else -1
    beyond = [one for one in judged if sign * residual_of(one) > margin_of(one)]
    if not beyond:
        return None
    worst = max(beyond, key=lambda one: sign * residual_of(one) - margin_of(one))
    return Drift(
        calibration=calibration.id,
        changed=changed,
        stratum=stratum,
        side=side,
        points=len(judged),
        beyond=tuple(sorted(one.one.measured.point for one in beyond)),
        error=residual_of(worst),
        bound=margin_of(worst),
    )
