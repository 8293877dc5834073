"""Makes a calibration from measurements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import median

from estimator.calibration.document import (
    Calibration,
    Measured,
    Modules,
    Range,
    calibration_to_json,
    content_id,
)
from estimator.calibration.evidence import DECISIVE
from estimator.host import HostPlan
from probes.comparison import Row
from probes.errors import FitError
from probes.fitting.coefficients import fit_coefficients
from probes.fitting.fragmentation import fit_fragmentation
from probes.fitting.observations import Observation, observations
from probes.fitting.residuals import by_stratum, cross_fitted
from probes.fitting.split import is_left_out
from probes.measurement import Measurement

MAX_MODULES_BYTES = 2**30
"""More than that beside context and reserved memory is another process's."""


def fit(measurements: Iterable[Measurement], *, leave_out: Callable[[str], bool] = is_left_out) -> Calibration:
    """The calibration of some measurements.

    Args:
        leave_out: families, by ``model_type``, that are kept for judging; none for a user's own calibration.

    Raises:
        FitError: no measurement is of a kind that can be fitted.
    """
    observed = observations(Row(measured=one) for one in measurements)
    kept = _distinct([one for one in observed if not leave_out(one.family)])
    if not kept:
        raise FitError("no measurement is a training run that ended well on a GPU, on the path planned for it")
    calibration = Calibration(
        points=len(kept),
        digests=tuple(sorted(one.measured.point for one in kept)),
        versions=_versions(kept),
        gpus=tuple(sorted({one.device for one in kept})),
        corrections=fit_coefficients(kept),
        residuals=by_stratum(cross_fitted(kept)),
        reserved=fit_fragmentation(kept),
        modules=_modules(kept),
        process=_process(kept),
        measured=_measured(observed),  # what was kept for judging is measured all the same
    )
    return replace(calibration, id=content_id(calibration_to_json(calibration)))


def _distinct(observed: Iterable[Observation]) -> list[Observation]:
    """One observation a point, the newest."""
    newest = {one.measured.point: one for one in sorted(observed, key=lambda one: one.measured.measured_at or "")}
    return [newest[point] for point in sorted(newest)]


def _versions(observed: Iterable[Observation]) -> dict[str, tuple[str, ...]]:
    found: dict[str, set[str]] = defaultdict(set)
    for one in observed:
        for name in DECISIVE:
            version = one.measured.stack.get(name)
            if version:
                found[name].add(version.partition("+")[0])
    return {name: tuple(sorted(versions)) for name, versions in found.items()}


def _modules(observed: Iterable[Observation]) -> dict[str, Modules]:
    """What the driver counts beside context, reserved memory and page tables, of all cards and of each."""
    found: dict[str, list[int]] = defaultdict(list)
    for one in observed:
        size = _beside(one)
        if size is not None and 0 < size < MAX_MODULES_BYTES:
            found[""].append(size)
            found[one.device].append(size)
    return {name: Modules(int(median(sizes)), tuple(sorted(sizes))) for name, sizes in found.items()}


def _beside(one: Observation) -> int | None:
    measured = one.measured
    if not (measured.device_used_bytes and measured.peak_reserved_bytes and one.has_room):
        return None
    context = measured.context_bytes or one.prepared.run.device.context_bytes
    pinned = measured.host.pinned_reserved_bytes if measured.host else 0
    if pinned is None:  # page tables of an unknown size
        return None
    tables = HostPlan(pinned, 0, 0, 0).page_table_bytes
    return measured.device_used_bytes - measured.peak_reserved_bytes - context - tables


def _process(observed: Iterable[Observation]) -> dict[str, int]:
    """Host RAM of the process itself: resident, less what is pinned, and less an embedding that moved there."""
    found: dict[str, list[int]] = defaultdict(list)
    for one in observed:
        host = one.measured.host
        if host and host.rss_bytes and host.pinned_reserved_bytes is not None and one.measured.lengths_before == ():
            moved = one.prepared.statics.weights.embedding if one.measured.ran.embedding_offloaded else 0
            found[one.prepared.run.trainer].append(host.rss_bytes - host.pinned_reserved_bytes - moved)
    return {trainer: int(median(sizes)) for trainer, sizes in found.items()}


def _measured(observed: Iterable[Observation]) -> dict[str, Measured]:
    by_path: dict[str, list[Observation]] = defaultdict(list)
    for one in observed:
        by_path[one.path].append(one)
    return {path: _covered(found) for path, found in by_path.items()}


def _covered(observed: Sequence[Observation]) -> Measured:
    architectures = [one.prepared.run.architecture for one in observed]
    return Measured(
        families=frozenset(one.family for one in observed),
        tokens=_range(one.z.tokens for one in observed),
        hidden_size=_range(shape.hidden_size for shape in architectures),
        num_hidden_layers=_range(shape.num_hidden_layers for shape in architectures),
    )


def _range(values: Iterable[int]) -> Range:
    listed = sorted(values)
    return Range(listed[0], listed[-1])
