"""Drift in a database that the queue shares with the calibrations: what was measured beyond a calibration's bound.

`ctxplan calibrate status` finds it in the files of a directory. Here it is found in the measurements that a fit may
read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, select

from app.queue.tables import MEASUREMENTS
from ctxplan.calibration_store import timestamp
from estimator.calibration.document import Calibration
from estimator.errors import CtxplanError

if TYPE_CHECKING:
    from probes.fitting.asking import Measurement

MOST_MEASUREMENTS = 500
"""The newest are looked at: a fraction of a second."""


class MeasuredDrift:
    """Judges what was measured, again only where there is another measurement or another calibration."""

    def __init__(self) -> None:
        self._found: tuple[tuple[str, tuple[int, ...]], Sequence[dict[str, Any]]] | None = None

    def of(self, connection: Connection, id: str, read: Callable[[], Calibration]) -> Sequence[dict[str, Any]]:
        """The findings, oldest first, each as `probes.fitting.drift.Drift` is written, and when its newest measurement
        beyond the bound came. To be called in a thread.

        Args:
            id: of the calibration. read: gives it, where it has to be looked at.
        """
        accepted = select(MEASUREMENTS.c.id).where(MEASUREMENTS.c.state == "accepted")
        newest = accepted.order_by(MEASUREMENTS.c.id.desc()).limit(MOST_MEASUREMENTS)
        looked_at = (id, tuple(connection.execute(newest).scalars()))
        known = self._found
        if known is not None and known[0] == looked_at:
            return known[1]
        columns = select(MEASUREMENTS.c.document, MEASUREMENTS.c.received_at)
        rows = connection.execute(columns.where(MEASUREMENTS.c.id.in_(looked_at[1]))).all() if looked_at[1] else ()
        found = _judged(rows, read())
        self._found = (looked_at, found)
        return found


def _judged(rows: Sequence[Row[Any, Any]], calibration: Calibration) -> Sequence[dict[str, Any]]:
    if not rows:
        return ()
    from probes.fitting.drift import find_drift
    from probes.fitting.rows import read_row

    read: list[Measurement] = []
    came: dict[str, datetime] = {}
    for row in rows:
        with suppress(CtxplanError):  # written by another release
            one = read_row(row.document, "measurement")
            read.append(one)
            came[one.point] = max(row.received_at, came.get(one.point, row.received_at))
    found = [
        {"at": timestamp(max(came[point] for point in drift.beyond)), **drift.to_json()}
        for drift in find_drift(read, calibration)
    ]
    return tuple(sorted(found, key=lambda one: str(one["at"])))
