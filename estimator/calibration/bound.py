"""The upper number: one-sided split-conformal by stratum, wider outside what was measured.

A residual is measured over expected allocated peak less one, of a point whose family was left out of the fit that
expected it. With n of them, the ceil((n + 1) c)-th smallest bounds a new one with probability c, whatever their
distribution (Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005; Lei et al., "Distribution-Free
Predictive Inference for Regression", 2018), as far as the new point is of their kind. A stratum is a path, a
checkpointing mode and a GPU; where it has too few residuals for the confidence, the path and mode, then the path alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

from estimator.calibration import structural
from estimator.calibration.corrections import kind_of
from estimator.calibration.document import Calibration
from estimator.calibration.evidence import reasons
from estimator.checkpointing import mode
from estimator.resolve import Run
from estimator.sizes import Sizes


class Evidence(NamedTuple):
    """Whether a run lies inside what was measured, and how wide its bound is.

    Attributes:
        margin: relative margin of the allocated peak at the asked confidence. reasons: why it lies outside, one
            sentence each. stratum: whose residuals the bound is from, and how many.
    """

    margin: float
    reasons: tuple[str, ...]
    stratum: str

    @property
    def inside(self) -> bool:
        return not self.reasons


def weigh_evidence(run: Run, z: Sizes) -> Evidence:
    """The bound of a run, and what it is from."""
    confidence = run.job.confidence
    factor = structural.confidence_factor(confidence)
    outside = reasons(run, z)
    wider = factor * sum(reason.margin for reason in outside)
    texts = tuple(reason.text for reason in outside)
    names = strata(run.path, kind_of(run), mode(run, z), run.device.name)
    found = pooled(run.calibration, names, confidence)
    if found is None:
        margin = factor * structural.PATH_MARGINS[run.path].allocated
        return Evidence(margin + wider, texts, "margins of the structure")
    if not found.thin:
        return Evidence(found.margin + wider, texts, found.stratum)
    margin = max(found.margin, factor * structural.PATH_MARGINS[run.path].allocated)
    few = f"{found.stratum} are too few for a bound at {confidence:.0%}: no narrower than the structure's"
    return Evidence(margin + wider, (*texts, few), found.stratum)


class Pooled(NamedTuple):
    """The bound of a stratum: its relative margin, whether its points are too few for it, and which they are."""

    margin: float
    thin: bool
    stratum: str


def pooled(calibration: Calibration, names: Sequence[str], confidence: float) -> Pooled | None:
    """The bound from the finest stratum with enough residuals, or from the coarsest; None where none has any.

    A finer stratum that is too thin for a bound of its own still keeps it from falling below its largest residual.
    """
    seen = 0.0
    found = None
    for name in names:
        residuals = calibration.residuals.get(name)
        if not residuals:
            continue
        margin, thin = conformal_margin(residuals, confidence)
        found = Pooled(max(margin, seen), thin, f"{len(residuals)} points of {name}")
        if not thin:
            break
        seen = max(seen, margin)
    return found


def conformal_margin(residuals: tuple[float, ...], confidence: float) -> tuple[float, bool]:
    """The margin of ascending residuals, never negative, and whether they are too few: then it is their largest."""
    rank = ceil(round((len(residuals) + 1) * confidence, 9))
    thin = rank > len(residuals)
    return max(residuals[-1 if thin else rank - 1], 0.0), thin


def strata(path: str, kind: str, checkpointing: object, gpu: str) -> tuple[str, ...]:
    """The strata of a run, finest first (kind: `estimator.calibration.corrections.kind_of`)."""
    kept = str(checkpointing).lower()
    return f"{path}/{kind}/{kept}/{gpu}", f"{path}/{kind}/{kept}", f"{path}/{kind}", path
