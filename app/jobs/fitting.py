"""A campaign's calibration: fitted to all that is known, judged on what the campaign has measured, and activated only
where nothing gets worse by it. A request's: fitted to its own rows, and compared on them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from estimator.calibration.document import Calibration

if TYPE_CHECKING:
    from probes.fitting.compare import Errors, Group

WORSE_IN_THE_MIDDLE = 0.002
"""By how much the median error of all other points may grow."""
WORSE_COVERED = 0.02
"""By how much the share of them below the bound may fall."""
NOTHING = "no measurement of the campaign is a training that ended well on a GPU, on the path planned for it"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """A calibration that was made of a campaign.

    Attributes:
        documents: the rows that it was fitted to. better: whether it may answer in the active one's place; ``why`` says
            in a line what speaks for or against it. errors: of both on the campaign's points, and on all.
    """

    calibration: Calibration
    documents: tuple[dict[str, Any], ...]
    better: bool
    why: str
    errors: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedRows:
    """A calibration that was made of some rows.

    Attributes:
        documents: the rows. errors: of the active calibration and of this one on them, by group
            (`probes.fitting.compare.Group`).
    """

    calibration: Calibration
    documents: tuple[dict[str, Any], ...]
    errors: Sequence[Mapping[str, Any]]


def fit_rows(rows: Sequence[Mapping[str, Any]], active: Calibration, *, leave_out: Collection[str]) -> FittedRows:
    """Fit a calibration to these rows alone. Seconds of arithmetic: for a process of its own.

    Args:
        leave_out: families, by ``model_type``, that are kept for judging.

    Raises:
        EvidenceError: one is no measurement. FitError: none can be fitted, or a family is in none.
    """
    from probes.fitting.compare import errors_of, observed
    from probes.fitting.own import fit_own
    from probes.fitting.rows import documents_of, read_rows

    read = read_rows(list(rows))
    calibration = fit_own(read, leave_out=leave_out)
    return FittedRows(
        calibration=calibration,
        documents=tuple(documents_of(read)),
        errors=[group.to_json() for group in errors_of(observed(read), active, calibration)],
    )


def fit_campaign(
    own: Sequence[Mapping[str, Any]],
    known: Sequence[Mapping[str, Any]],
    active: Calibration,
    *,
    is_shipped: bool,
) -> Fitted:
    """Fit a calibration. Seconds of arithmetic: to be called in a thread.

    Args:
        own: the documents that the campaign's jobs gave and that are to be believed. known: all others that a fit may
            read: the queue's, and those that the active calibration was fitted to. is_shipped: whether the active one
            is the release's; then the committed measurements are fitted too, where this is a checkout.

    Raises:
        FitError: nothing of the campaign can be fitted.
    """
    from probes.fitting.asking import EvidenceError, FitError, is_planned_here
    from probes.fitting.compare import errors_of, observed
    from probes.fitting.own import fit_own
    from probes.fitting.rows import committed_rows, documents_of, read_row

    mine = [one for one in (read_row(data, "measurement") for data in own) if is_planned_here(one)]
    points = observed(mine)
    if not points:
        raise FitError(NOTHING)
    others = [one for one in (read_row(data, "measurement") for data in known) if is_planned_here(one)]
    if is_shipped:
        with suppress(EvidenceError):  # a wheel has none
            others += committed_rows()
    rows = [*others, *mine]
    calibration = fit_own(rows)
    on_its_own = errors_of(points, active, calibration)[-1]
    on_all = errors_of(observed(rows), active, calibration)[-1]
    better, why = verdict(active, calibration, on_its_own, on_all)
    return Fitted(
        calibration=calibration,
        documents=tuple(documents_of(rows)),
        better=better,
        why=why,
        errors={"campaign": on_its_own.to_json(), "all": on_all.to_json()},
    )


def verdict(active: Calibration, fitted: Calibration, on_its_own: Group, on_all: Group) -> tuple[bool, str]:
    """Whether a calibration may take the active one's place, and why."""
    missing = len(set(active.digests) - set(fitted.digests))
    if missing:
        return False, f"{missing} points of the active calibration are not here to be fitted again"
    if on_its_own.after.middle > on_its_own.before.middle:
        return False, "it is farther off on the campaign's own points"
    if on_its_own.after.covered < on_its_own.before.covered:
        return False, "its bound holds on fewer of the campaign's own points"
    if _is_worse(on_all.before, on_all.after):
        return False, "it is worse on the points that were known before"
    return True, f"fitted to all that the active one was, and to {fitted.points - active.points} more points"


def _is_worse(before: Errors, after: Errors) -> bool:
    return after.middle > before.middle + WORSE_IN_THE_MIDDLE or after.covered < before.covered - WORSE_COVERED
