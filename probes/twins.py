"""Twins: a job with few layers and the true shape of everything else, and what it says about the full depth.

Layer inputs leave the GPU under ``"unsloth"`` checkpointing, so that depth adds what the estimator knows to the byte:
weights, adapters, their gradients and optimizer state (and layer inputs, where they stay). A full peak is therefore the
twin's measured peak plus the difference of the two estimates, phase by phase. What Unsloth decides from the free
memory can differ between the two; the difference holds those terms too, and the extension says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ctxplan import Planner
from ctxplan.naming import gpu_name
from estimator import Estimate, Job, find_device, parse_job, with_layers
from estimator.answer import Outcome, Prepared, outcome_at, prepare
from estimator.calibration.reserved import with_fragmentation
from probes.comparison import PARTS, Part, phase_bytes
from probes.errors import PointError
from probes.measurement import Measurement
from probes.points import Point

LEAST_LAYERS = 3
"""A first, a middle and a last layer: what Unsloth treats apart (unsloth_zoo/gradient_checkpointing.py
``LAST_GC_INDEX``; the first layer's gradients do not exist during its own backward)."""

OF_STEPS = (
    "use_gradient_checkpointing",
    "inputs_offloaded",
    "double_buffer",
    "embedding_offloaded",
    "loss",
    "loss_rows",
)
"""The keys of an estimate's regime that are decisions and that a step feels; the count of pinned buffers is depth."""

BEFORE_STEPS = "embedding_leaves_after"
"""When the embedding leaves, which no step feels: what load and adapters leave behind is extended by it."""

DECISIONS = (*OF_STEPS, BEFORE_STEPS)
"""The decisions that the twin and the full model are compared by."""

PLANNER = Planner()


class Difference(NamedTuple):
    """One decision that the twin and the full model take differently."""

    key: str
    twin: object
    full: object


@dataclass(frozen=True, slots=True, kw_only=True)
class Extension:
    """What a twin's measurement says about the full depth. Bytes; None where the twin did not measure it.

    Attributes:
        job: the full job, resolved. layers, twin_layers: how deep it is, and how deep the twin was.
        after_load_allocated_bytes, after_peft_allocated_bytes, forward_peak_bytes, backward_peak_bytes,
        optimizer_peak_bytes, peak_allocated_bytes: as in a measurement, of the full depth.
        peak_reserved_bytes: the same, with as much reserved beyond allocated as the twin had; not exact.
        unexplained_bytes: the twin's measured peak less its estimate, which the full depth is taken to share.
        differences: decisions that the two take differently. assumptions: what the extension rests on, in words.
    """

    job: Job
    layers: int
    twin_layers: int
    sequence_length: int
    after_load_allocated_bytes: int | None
    after_peft_allocated_bytes: int | None
    forward_peak_bytes: int | None
    backward_peak_bytes: int | None
    optimizer_peak_bytes: int | None
    peak_allocated_bytes: int
    peak_reserved_bytes: int | None
    unexplained_bytes: int
    differences: tuple[Difference, ...]
    assumptions: tuple[str, ...]

    @property
    def same_regime(self) -> bool:
        """Whether every decision that a step feels is the full model's."""
        return not _felt_by_a_step(self.differences)


def twin_of(point: Point, layers: int) -> Point:
    """The point with its model cut to the first ``layers`` layers.

    Raises:
        PointError: fewer than one, or no fewer than the point has.
    """
    depth = point.job.num_hidden_layers
    if layers < 1 or (depth is not None and layers >= depth):
        most = "" if depth is None else f" to {depth - 1}"
        raise PointError(f"{layers} layers are no twin of this point", key="num_hidden_layers", allowed=f"1{most}")
    return replace(point, job=replace(point.job, num_hidden_layers=layers))


def extend(
    measurement: Measurement,
    *,
    layers: int | None = None,
    gpu: str | Mapping[str, Any] | None = None,
    planner: Planner = PLANNER,
) -> Extension:
    """Extend a twin's measurement to the full depth.

    Args:
        layers: the depth to extend to; None for the model's own.
        gpu: the card of the full job; None for the one that the twin ran on or, where it ran under a cap, the one
            that its job names.

    Raises:
        PointError: not a measurement with peaks, or no shallower than what it is extended to.
        CtxplanError: the job cannot be planned.
    """
    _check_measured(measurement)
    twin, full = _estimates(measurement, layers, gpu, planner)
    peaks = {part.key: _extended(measurement, part, twin, full) for part in PARTS}
    steps = [peak for part, peak in peaks.items() if part not in ("load", "peft") and peak is not None]
    measured, reserved = measurement.peak_allocated_bytes or 0, measurement.peak_reserved_bytes
    peak = max(steps) if steps else measured + full.peak.allocated_bytes - twin.peak.allocated_bytes
    return Extension(
        job=full.job,
        layers=_depth(full),
        twin_layers=_depth(twin),
        sequence_length=measurement.sequence_length,
        after_load_allocated_bytes=peaks["load"],
        after_peft_allocated_bytes=peaks["peft"],
        forward_peak_bytes=peaks["forward"],
        backward_peak_bytes=peaks["backward"],
        optimizer_peak_bytes=peaks["optimizer"],
        peak_allocated_bytes=peak,
        peak_reserved_bytes=None if reserved is None else reserved - measured + peak,
        unexplained_bytes=measured - twin.peak.allocated_bytes,
        differences=_differences(twin, full),
        assumptions=tuple(_assumptions(measurement, twin, full, planner)),
    )


def cap_for(point: Point, layers: int, *, planner: Planner = PLANNER) -> int:
    """Total bytes of the card on which the twin decides as the full model does on its own.

    The free memory is made equal at the first of these moments for which the estimate says that every decision then
    is the full model's, and that the twin fits if that does: after the load (where the embedding may move), after the
    first step (which admits the second staging buffer), after ``get_peft_model`` (where the embedding is looked at
    again), at the peak. Where none does, the first for which all that a step feels is the full model's; else the
    first of all, and `extend` will say what differs.

    Raises:
        PointError: as `twin_of`. CtxplanError: the job cannot be planned.
    """
    device = find_device(planned_job(point).gpu)
    architecture = planner.facts(point.job.model).architecture
    cut = twin_of(point, layers).job

    def on(total_bytes: int, job: Job) -> Prepared:
        there = replace(job, gpu={"name": device.name, "total_bytes": total_bytes})
        return prepare(there, architecture, planner.calibration, trainer=point.trainer)

    full = on(device.total_bytes, point.job)
    loaded = device.total_bytes - _loaded_bytes(full) + _loaded_bytes(on(device.total_bytes, cut))
    caps = [loaded]
    for moment in (_first_step_bytes, _reserved_for_training_bytes, _needed_bytes):
        caps.append(device.total_bytes - moment(full) + moment(on(loaded, cut)))
    wanted = planner.estimate(full.run.job, trainer=point.trainer)
    alike_in_steps = []
    for cap in caps:
        found = planner.estimate(on(cap, cut).run.job, trainer=point.trainer)
        runs = wanted.verdict == "does_not_fit" or found.verdict != "does_not_fit"
        differences = _differences(found, wanted)
        if runs and not differences:
            return cap
        if runs and not _felt_by_a_step(differences):
            alike_in_steps.append(cap)
    return [*alike_in_steps, loaded][0]


def planned_job(point: Point) -> Job:
    """The point's job on the card that it is to see: under a cap, the smaller one."""
    if point.cap_bytes is None:
        return point.job
    gpu = point.job.gpu
    name = gpu_name(gpu)
    return replace(point.job, gpu={"name": name, "total_bytes": point.cap_bytes})


def card_of(measurement: Measurement) -> str | dict[str, Any]:
    """The card that a measurement ran on, as a job's ``gpu``: the driver's name, and the bytes that it had there."""
    total = measurement.cap.total_bytes if measurement.cap else measurement.total_bytes
    name = measurement.gpu or ""
    return {"name": name, "total_bytes": total} if total else name


def _loaded_bytes(prepared: Prepared) -> int:
    """What the load leaves allocated, the embedding included: where `embedding.embedding_offloaded` first looks."""
    return prepared.statics.weights.total


def _first_step_bytes(prepared: Prepared) -> int:
    """What is reserved when the first step ends: where the second staging buffer is admitted."""
    simulation = _outcome(prepared).simulation
    return with_fragmentation(prepared.run, simulation.first_step_bytes, simulation.resting_bytes)


def _reserved_for_training_bytes(prepared: Prepared) -> int:
    """What `embedding.embedding_offloaded` takes off the card when it looks again, after ``get_peft_model``."""
    elements = prepared.statics.trainable.lora_elements
    return _loaded_bytes(prepared) + prepared.statics.trained_bytes + 17 * elements


def _needed_bytes(prepared: Prepared) -> int:
    """What the peak needs reserved."""
    return _outcome(prepared).needed.expected


def _outcome(prepared: Prepared) -> Outcome:
    job = prepared.run.job
    return outcome_at(prepared, job.max_seq_length, job.sequence_length or job.max_seq_length)


def _check_measured(measurement: Measurement) -> None:
    if measurement.outcome != "ok" or measurement.peak_allocated_bytes is None:
        ended = measurement.outcome if measurement.outcome != "ok" else f"path {measurement.execution_path}"
        raise PointError(f"{ended}: there are no peaks to extend", key="measurement", allowed="a GPU run that ended ok")


def _estimates(
    measurement: Measurement, layers: int | None, gpu: str | Mapping[str, Any] | None, planner: Planner
) -> tuple[Estimate, Estimate]:
    """Of the twin as it ran, and of the full job on the card that it is for."""
    asked = parse_job(measurement.job)
    cut = replace(asked, num_hidden_layers=measurement.num_hidden_layers)
    trainer = measurement.trainer
    twin = planner.estimate(replace(cut, gpu=card_of(measurement)), trainer=trainer)
    full_gpu = gpu or (asked.gpu if measurement.cap else card_of(measurement))
    full = planner.estimate(replace(asked, gpu=full_gpu, num_hidden_layers=layers), trainer=trainer)
    if _depth(full) <= _depth(twin):
        raise PointError(f"{_depth(twin)} layers are no twin of {_depth(full)}", key="num_hidden_layers")
    return twin, full


def _depth(estimate: Estimate) -> int:
    return estimate.job.num_hidden_layers or 0


def _extended(measurement: Measurement, part: Part, twin: Estimate, full: Estimate) -> int | None:
    """The measured peak of one part, or what a part before the steps left, and what depth adds to it."""
    if part.key in ("load", "peft"):
        left: int | None = getattr(measurement, f"after_{part.key}_allocated_bytes")
        return None if left is None else left + _left_by(full, part.key) - _left_by(twin, part.key)
    measured = part.measured(measurement)
    if measured is None:
        return None
    return measured + phase_bytes(full, *part.phases) - phase_bytes(twin, *part.phases)


def _left_by(estimate: Estimate, part: str) -> int:
    """What is allocated when a phase before the steps is over, an embedding that leaves at its end gone."""
    (phase,) = (phase for phase in estimate.phases if phase.phase == part)
    leaves = estimate.regime[BEFORE_STEPS] == part
    return phase.allocated_bytes - (sum(row[1] for row in phase.rows if row[0] == "embedding") if leaves else 0)


def _regime(estimate: Estimate) -> dict[str, object]:
    return {key: estimate.regime[key] for key in DECISIONS}


def _differences(twin: Estimate, full: Estimate) -> tuple[Difference, ...]:
    one, other = _regime(twin), _regime(full)
    return tuple(Difference(key, one[key], other[key]) for key in DECISIONS if one[key] != other[key])


def _felt_by_a_step(differences: Iterable[Difference]) -> list[Difference]:
    return [one for one in differences if one.key in OF_STEPS]


def _assumptions(
    measurement: Measurement,
    twin: Estimate,
    full: Estimate,
    planner: Planner,
) -> list[str]:
    said = [
        f"{key} is {of_twin} in the twin and {of_full} at full depth: the difference is the estimate's"
        for key, of_twin, of_full in _differences(twin, full)
    ]
    for key, value in _regime(twin).items():
        ran = getattr(measurement.ran, key, None)
        if ran is not None and bool(ran) != bool(value):
            said.append(f"the twin ran with {key} {ran}, its estimate has {value}: the extension is off by that term")
    if measurement.execution_path != twin.execution_path:
        said.append(f"the twin ran on path {measurement.execution_path}, its estimate is of {twin.execution_path}")
    if _depth(twin) < LEAST_LAYERS:
        said.append(f"fewer than {LEAST_LAYERS} layers: the first layer is the last, or next to it")
    missing = _missing_kinds(full.job, _depth(twin), planner)
    if missing:
        said.append(f"{missing} of the model's kinds of layer are not in the twin: their live set is the estimate's")
    return said


def _missing_kinds(job: Job, layers: int, planner: Planner) -> int:
    """Kinds of layer (attention window, experts, widths) that a cut model has none of."""
    architecture = planner.facts(job.model).architecture
    return len(architecture.layers) - len(with_layers(architecture, layers).layers)
