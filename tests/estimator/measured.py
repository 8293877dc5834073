"""The committed measurements, each with the estimate of its job on the GPU that it ran on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ctxplan.models import resolve_model
from estimator import Estimate, estimate, parse_job
from estimator.job import ALL_LINEAR

MEASUREMENTS = Path(__file__).parents[2] / "evidence" / "measurements"
FAMILIES_BY_NAME = ("gemma-2", "gemma-3", "granite", "gpt-oss", "phi-4", "Qwen3-30B")


@dataclass(frozen=True, slots=True)
class Row:
    """One measured run.

    Attributes:
        name: file, number and what it ran, for the test's id. data: the row as it was written.
    """

    name: str
    data: dict[str, Any]

    @property
    def job(self) -> dict[str, Any]:
        job: dict[str, Any] = self.data["job"]
        return job

    @property
    def estimate(self) -> Estimate:
        return _estimate_of(json.dumps({**self.job, "gpu": self.data["gpu"]}, sort_keys=True))

    @property
    def path(self) -> str:
        return str(self.data["execution_path"])

    @property
    def on_h100(self) -> bool:
        return "H100" in self.data["gpu"]

    @property
    def family(self) -> str:
        """The part of the model's name that says how it was measured; "dense" for Llama and its like."""
        return next((name for name in FAMILIES_BY_NAME if name in self.job["model"]), "dense")

    @property
    def is_training(self) -> bool:
        """Whether whole steps ran: rows of an evaluation or a generation have one peak only."""
        return "backward_peak_bytes" in self.data

    @property
    def adapts_everything(self) -> bool:
        """LoRA on the seven projections, without dropout: all of Unsloth's kernels as they were read."""
        return tuple(self.job["target_modules"]) == ALL_LINEAR and not self.job["lora_dropout"]

    @property
    def double_buffer_off(self) -> bool:
        """The run had UNSLOTH_DISABLE_DOUBLE_BUFFER=1, which a job cannot say."""
        return "UNSLOTH_DISABLE_DOUBLE_BUFFER" in self.data.get("environment", {})

    @property
    def peak_phase(self) -> str:
        """forward (the loss with it), backward or optimizer."""
        return max(("forward", "backward", "optimizer"), key=lambda phase: self.data[f"{phase}_peak_bytes"])


@cache
def _estimate_of(job: str) -> Estimate:
    parsed = parse_job(json.loads(job))
    return estimate(parsed, resolve_model(parsed.model, offline=True).architecture)


@cache
def all_rows() -> tuple[Row, ...]:
    """Every committed row."""
    return tuple(_read())


def _read() -> Iterator[Row]:
    for file in sorted(MEASUREMENTS.glob("*.jsonl")):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            data = json.loads(line)
            model = data["job"]["model"].rpartition("/")[2]
            ran = f"{model}-{data['num_hidden_layers']}x{data['sequence_length']}"
            yield Row(f"{file.stem.split('-')[0]}:{number}-{data['execution_path']}-{ran}", data)


def phase_bytes(estimate: Estimate, *phases: str) -> int:
    """The widest of some phases; 0 where the estimate has none of them."""
    return max((p.allocated_bytes for p in estimate.phases if p.phase in phases), default=0)


def off_by(expected: int, measured: int) -> float:
    """Relative difference, positive where too much is expected."""
    return expected / measured - 1
