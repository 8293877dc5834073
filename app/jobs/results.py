"""A result is held to the point that was leased, and to what was expected of it.

What is not of the point is refused, and the job goes on as it was. What is of the point and not to be believed ends
the job and is quarantined: kept, shown, and read by no fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.jobs.errors import WrongPoint
from app.jobs.measurements import Imported
from app.queue import JobView
from ctxplan import Planner
from estimator.calibration.document import Calibration
from estimator.device import find_device
from estimator.errors import CtxplanError

MAX_REASON = 1000


def doubt_of_result(data: Any, job: JobView, calibration: Calibration) -> str | None:
    """Why no fit is to read a job's result; None where it is to be believed. To be called in a thread.

    Raises:
        CtxplanError: it is no measurement. WrongPoint: it is another point's.
    """
    from probes.fitting.asking import differences, doubt
    from probes.fitting.rows import read_row

    measured = read_row(data, "measurement")
    if measured.point != job.point_digest:
        raise WrongPoint("is not the digest of the point that was leased", key="point", allowed=job.point_digest)
    for key in differences(measured, job.point):
        raise WrongPoint("is not what was leased", key=key, allowed="the leased point's own")
    return _line(doubt(measured, calibration, gpu=job.gpu))


def to_be_taken_in(documents: Sequence[Any], models: Planner, calibration: Calibration) -> list[Imported]:
    """Measurements that no lease was for, each with its point. To be called in a thread.

    Args:
        models: knows the models that a request may name.

    Raises:
        CtxplanError: one is no measurement, or names a model that a request may not. WrongPoint: one is not of the
            point that it names. The key says which.
    """
    return [_imported(one, f"measurements[{number}]", models, calibration) for number, one in enumerate(documents)]


def _imported(document: Any, key: str, models: Planner, calibration: Calibration) -> Imported:
    from probes.fitting.asking import doubt, point_of
    from probes.fitting.rows import read_row

    measured = read_row(document, key)
    try:
        point = point_of(measured)
        models.facts(point.job.model)
        card = None if point.cap_bytes else find_device(point.job.gpu).name
    except CtxplanError as error:
        where = f"{key}.{error.key}" if error.key else key
        raise WrongPoint(error.message, key=where, allowed=error.allowed) from None
    reason = _line(doubt(measured, calibration, gpu=card))
    return Imported(point=point.to_json(), gpu=card, document=document, quarantine=reason)


def _line(reason: str | None) -> str | None:
    """A line that both databases hold."""
    return None if reason is None else "".join(c if c.isprintable() else " " for c in reason)[:MAX_REASON]
