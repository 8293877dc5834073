"""Measures many points, group by group, into a file that a later run goes on from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

from probes.files import append_document, check_writable, read_documents
from probes.lock import held
from probes.measurement import Measurement
from probes.points import Point
from probes.protocol import Progress
from probes.supervise import DEFAULTS, Options, measure

FINISHED = frozenset({"ok", "out_of_memory", "host_out_of_memory", "not_supported"})
"""Outcomes that would only come again; the others are tried again."""

Measure = Callable[..., list[Measurement]]


def sweep(
    groups: Iterable[Sequence[Point]],
    out: Path,
    options: Options = DEFAULTS,
    *,
    on_progress: Callable[[Point, Progress], None] = lambda *_: None,
    on_measurement: Callable[[Measurement], None] = lambda _: None,
    measure: Measure = measure,
) -> list[Measurement]:
    """Measure the points that ``out`` has no finished measurement of, and append each as soon as it exists.

    The points of a group share a process. ``on_measurement`` gets each, also one that ``out`` did not take.

    Returns what was measured now.

    Raises:
        EvidenceError: ``out`` cannot be read or written, or another sweep is writing it.
        ProbeUnavailable, PointError, UnknownDevice: as `measure`; what was measured before is in ``out``.
    """
    check_writable(out, read_again=True)
    measured: list[Measurement] = []

    with held(out):
        finished = finished_points(out)

        def keep(measurement: Measurement) -> None:
            measured.append(measurement)
            if measurement.outcome in FINISHED:
                finished.add(measurement.point)
            try:
                append_document(out, measurement.model_dump(mode="json"))
            finally:
                on_measurement(measurement)

        for group in groups:
            todo = [point for point in group if point.digest not in finished]
            measure_group(todo, options, on_progress=on_progress, on_measurement=keep, measure=measure)
    return measured


def measure_group(
    points: Sequence[Point],
    options: Options = DEFAULTS,
    *,
    on_progress: Callable[[Point, Progress], None] = lambda *_: None,
    on_measurement: Callable[[Measurement], None] = lambda _: None,
    measure: Measure = measure,
) -> list[Measurement]:
    """Measure the points in one process, and each that its early end left out in a process of its own.

    Raises:
        ProbeUnavailable, PointError, UnknownDevice: as `measure`.
    """
    measured: list[Measurement] = []
    left = list(points)
    together = left
    while together:
        report = partial(_report, together, on_progress)
        tried = measure(together, options, on_progress=report, on_measurement=on_measurement)
        measured += tried
        digests = {measurement.point for measurement in tried}
        left = [point for point in left if point.digest not in digests]
        together = left[:1] if tried else []
    return measured


def finished_points(out: Path) -> set[str]:
    """Digests of the points that have a finished measurement in a file. Raises EvidenceError."""
    return {str(row.get("point")) for row in read_documents(out) if row.get("outcome") in FINISHED}


def outcomes(points: Iterable[Point], out: Path) -> list[str]:
    """How each point ended the last time, of those that a file has. Raises EvidenceError."""
    last = {str(row.get("point")): str(row.get("outcome")) for row in read_documents(out)}
    return [last[point.digest] for point in points if point.digest in last]


def _report(points: Sequence[Point], report: Callable[[Point, Progress], None], progress: Progress) -> None:
    report(points[progress.index], progress)
