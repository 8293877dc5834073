"""The committed measurements, each with the structure's own estimate of its job (`probes.comparison` does the work)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ctxplan import Planner
from estimator import Estimate
from estimator.calibration.document import STRUCTURAL
from estimator.job import ALL_LINEAR
from probes import comparison
from probes.comparison import off_by, phase_bytes
from probes.rows import read_measurements

__all__ = ["Row", "all_rows", "measured_rows", "off_by", "phase_bytes"]

MEASUREMENTS = Path(__file__).parents[2] / "evidence" / "measurements"
DENSE = ("llama", "mistral", "qwen2", "qwen3")
REFERENCE_INSTRUMENT = "scratch script of 2026-11-22, the loss held through the optimizer step"
PLANNER = Planner(offline=True, calibration=STRUCTURAL)
"""Without any fit: what these tests hold is what is calculated."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measured run.

    Attributes:
        name: file, number and what it ran, for the test's id. data: the row as it was written. compared: the row with
            its estimate.
    """

    name: str
    data: dict[str, Any]
    compared: comparison.Row

    @property
    def job(self) -> dict[str, Any]:
        job: dict[str, Any] = self.data["job"]
        return job

    @property
    def estimate(self) -> Estimate:
        return self.compared.estimate

    @property
    def path(self) -> str:
        return str(self.data["execution_path"])

    @property
    def ended_well(self) -> bool:
        return bool(self.data["outcome"] == "ok")

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU was used: a row of Unsloth's CPU backend carries no GPU byte."""
        return self.data["gpu"] is not None and self.path != "cpu"

    @property
    def is_reference(self) -> bool:
        """One of the first rows, alone on an H100, whose loop held the loss, and with it the graph's two hidden
        states, through the optimizer step."""
        return bool(self.data["instrument"] == REFERENCE_INSTRUMENT)

    @property
    def family(self) -> str:
        """The ``model_type``, by which it is said how it was measured; "dense" for Llama and its like."""
        model_type = PLANNER.facts(self.job["model"]).architecture.model_type
        return "dense" if model_type in DENSE else model_type

    @property
    def is_training(self) -> bool:
        """Whether whole steps ran: rows of an evaluation or a generation have one peak only."""
        return self.compared.trained

    @property
    def adapts_everything(self) -> bool:
        """LoRA on the seven projections, without dropout: all of Unsloth's kernels as they were read."""
        targets = self.job["target_modules"]
        return (targets == "all-linear" or set(targets) == set(ALL_LINEAR)) and not self.job["lora_dropout"]

    @property
    def double_buffer_off(self) -> bool:
        """The run had UNSLOTH_DISABLE_DOUBLE_BUFFER=1, which a job cannot say."""
        return bool(self.data["environment"].get("UNSLOTH_DISABLE_DOUBLE_BUFFER") == "1")

    @property
    def peak_phase(self) -> str:
        """forward (the loss with it), backward or optimizer."""
        return max(("forward", "backward", "optimizer"), key=lambda phase: self.data[f"{phase}_peak_bytes"])


@cache
def all_rows() -> tuple[Row, ...]:
    """Every committed row."""
    return tuple(_read())


def measured_rows() -> tuple[Row, ...]:
    """The rows that ended well on a GPU: the peaks that an estimate is compared with."""
    return tuple(row for row in all_rows() if row.ended_well and row.on_gpu)


def _read() -> Iterator[Row]:
    for file in sorted(MEASUREMENTS.glob("*.jsonl")):
        lines = file.read_text(encoding="utf-8").splitlines()
        for number, (line, one) in enumerate(zip(lines, read_measurements(file), strict=True), start=1):
            data = json.loads(line)
            ran = f"{_short(data['job']['model'])}-{data['num_hidden_layers']}x{data['sequence_length']}"
            name = f"{file.stem}:{number}-{data['execution_path']}-{ran}"
            yield Row(name, data, comparison.Row(measured=one, planner=PLANNER))


def _short(model: str | dict[str, Any]) -> str:
    """A model's name without its owner; a config object's ``model_type``."""
    return str(model["model_type"]) if isinstance(model, dict) else model.rpartition("/")[2]
