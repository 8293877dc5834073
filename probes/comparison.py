"""Measurements beside the estimates of their jobs, each on the card that it ran on."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ctxplan import Planner
from estimator import Estimate, Job, parse_job
from probes.errors import EvidenceError
from probes.measurement import Measurement, Stage
from probes.rows import read_measurements

PLANNER = Planner(offline=True)
FLEX = "UNSLOTH_ENABLE_FLEX_ATTENTION"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement, and the estimate of its job on the card that it ran on, by the trainer that ran it."""

    measured: Measurement
    planner: Planner = PLANNER

    @cached_property
    def job(self) -> Job:
        attention = {"attn_implementation": "eager"} if self._flex_is_off else {}
        return parse_job({**self.measured.job, **attention, "gpu": self._card()})

    @cached_property
    def estimate(self) -> Estimate:
        return self.planner.estimate(self.job, trainer=self.measured.trainer)

    @property
    def error(self) -> float:
        return off_by(self.estimate.peak_allocated_bytes.expected, self.measured.peak_allocated_bytes)

    @property
    def has_variables(self) -> bool:
        """A variable was set for the process that a job cannot say, and so the estimate cannot know."""
        return bool(self.measured.environment_asked.keys() - ({FLEX} if self._flex_is_off else set()))

    @property
    def trained(self) -> bool:
        return self.measured.backward_peak_bytes is not None

    @property
    def _flex_is_off(self) -> bool:
        """Without it gpt_oss falls back to eager (unsloth_zoo/temporary_patches/gpt_oss.py), which a job can say."""
        architecture = self.planner.facts(self.measured.job["model"]).architecture
        return architecture.model_type == "gpt_oss" and self.measured.environment_asked.get(FLEX) == "0"

    def _card(self) -> str | dict[str, Any]:
        name = str(self.measured.gpu)
        return {"name": name, "total_bytes": self.measured.cap.total_bytes} if self.measured.cap else name


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part of a run: what it is called, how the estimate calls its phases, and where a measurement has its peak."""

    key: str
    name: str
    phases: tuple[str, ...]
    measured: Callable[[Measurement], int | None]


def most_during(measurement: Measurement, stage: Stage | None, when_done: int | None) -> int | None:
    """The peak of a stage, bytes; where only what was left at its end is known, that, unless the embedding left."""
    if stage is not None and stage.peak.allocated_bytes is not None:
        return stage.peak.allocated_bytes
    return None if measurement.ran.embedding_offloaded else when_done


PARTS = (
    Part(
        key="load",
        name="load",
        phases=("load",),
        measured=lambda m: most_during(m, m.load, m.after_load_allocated_bytes),
    ),
    Part(
        key="peft",
        name="PEFT",
        phases=("peft",),
        measured=lambda m: most_during(m, m.peft, m.after_peft_allocated_bytes),
    ),
    Part(key="forward", name="forward and loss", phases=("forward", "loss"), measured=lambda m: m.forward_peak_bytes),
    Part(key="backward", name="backward", phases=("backward",), measured=lambda m: m.backward_peak_bytes),
    Part(key="optimizer", name="optimizer step", phases=("optimizer",), measured=lambda m: m.optimizer_peak_bytes),
)


def part_errors(part: Part, rows: Iterable[Row]) -> list[float]:
    """The signed errors of one part, of the rows that have it and whose estimate has it."""
    errors = []
    for row in rows:
        measured, expected = part.measured(row.measured), phase_bytes(row.estimate, *part.phases)
        if measured and expected:
            errors.append(off_by(expected, measured))
    return errors


def phase_bytes(estimate: Estimate, *phases: str) -> int:
    """The widest of some phases; 0 where the estimate has none of them."""
    return max((p.allocated_bytes for p in estimate.phases if p.phase in phases), default=0)


def off_by(expected: int, measured: int | None) -> float:
    """Relative difference, positive where too much is expected."""
    if not measured:
        raise EvidenceError("a measurement that ended well has no peak")
    return expected / measured - 1


def read_rows(folder: Path) -> list[Row]:
    """Every measurement of a folder's ``*.jsonl``. Raises EvidenceError."""
    return [Row(measured=one) for file in sorted(folder.glob("*.jsonl")) for one in read_measurements(file)]
