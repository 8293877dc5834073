"""Measurements to test with: committed rows, and what they would have been under other circumstances."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from probes.comparison import PLANNER
from probes.measurement import Measurement
from probes.points import Point

MEASUREMENTS = Path(__file__).parents[2] / "evidence" / "measurements"


@cache
def committed() -> tuple[Measurement, ...]:
    """Every committed row."""
    texts = (file.read_text(encoding="utf-8") for file in sorted(MEASUREMENTS.glob("*.jsonl")))
    lines = (line for text in texts for line in text.splitlines())
    return tuple(Measurement.model_validate_json(line) for line in lines)


def eager_row() -> Measurement:
    """A row of Unsloth's own forward, on an H100 80 GB, that has everything a training step has."""
    return next(row for row in committed() if row.execution_path == "eager" and row.gpu == "NVIDIA H100 80GB HBM3")


def measured(point: Point, **changes: Any) -> Measurement:
    """What ``point`` could have given: a committed row's document with its job, and ``changes``."""
    job = point.to_json()["job"]
    document = eager_row().model_dump()
    document.update(point=point.digest, job=job, trainer=point.trainer, sequence_length=point.sequence_length)
    return Measurement.model_validate({**document, **changes})


def believable(point: Point, *, times: float = 1.0, **changes: Any) -> Measurement:
    """A measurement whose peaks are so many times what is expected of its point."""
    estimate = PLANNER.estimate(point.job, trainer=point.trainer)
    phases = {phase.phase: int(phase.allocated_bytes * times) for phase in estimate.phases}
    peak = int(estimate.peak_allocated_bytes.expected * times)
    values = {
        "steps_asked": point.steps,
        "execution_path": estimate.execution_path,
        "num_hidden_layers": estimate.job.num_hidden_layers,
        "forward_peak_bytes": max(phases["forward"], phases.get("loss", 0)),
        "backward_peak_bytes": phases["backward"],
        "optimizer_peak_bytes": phases["optimizer"],
        "peak_allocated_bytes": peak,
        "peak_reserved_bytes": int(peak * 1.01),
        "device_used_bytes": None,
        "host": None,
    }
    return measured(point, **{**values, **changes})


def measured_on_the_cpu(point: Point, **changes: Any) -> Measurement:
    """What Unsloth's CPU backend could have given: the same, without a GPU and without a byte of one."""
    gone = [name for name in Measurement.model_fields if name.endswith("_bytes")]
    gone += ["gpu", "compute_capability", "cap", "load", "peft", "allocator", "live_tensors", "host"]
    parts = ("forward", "backward", "optimizer", "peak_allocated_bytes", "peak_reserved_bytes", "device_used_bytes")
    step = {**dict.fromkeys(parts), "loss": 2.5, "seconds": 0.1}
    ran = {"execution_path": "cpu", "steps": [step] * point.steps, "steps_run": point.steps}
    return measured(point, **{**dict.fromkeys(gone), **ran, **changes})


def out_of_memory(point: Point, **changes: Any) -> Measurement:
    """The same, out of memory in the first backward."""
    what = {
        "phase": "backward",
        "step": 1,
        "tried_bytes": 2**31,
        "allocated_bytes": 2**36,
        "reserved_bytes": 2**36,
        "message": "CUDA out of memory",
    }
    gone = dict.fromkeys(("peak_allocated_bytes", "peak_reserved_bytes", "backward_peak_bytes", "optimizer_peak_bytes"))
    return measured(point, outcome="out_of_memory", out_of_memory=what, steps=(), steps_run=0, **gone, **changes)
