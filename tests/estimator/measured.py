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
from estimator.architecture import Architecture
from estimator.job import ALL_LINEAR

MEASUREMENTS = Path(__file__).parents[2] / "evidence" / "measurements"
DENSE = ("llama", "mistral", "qwen2", "qwen3")
REFERENCE_INSTRUMENT = "scratch script of 2026-11-22, the loss held through the optimizer step"


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
        return _estimate_of(json.dumps({**self.job, **self._said_by_variables, "gpu": self._card}, sort_keys=True))

    @property
    def _card(self) -> str | dict[str, Any]:
        """The card that it ran on, as the driver names it, with the bytes of a smaller one that it stood in for."""
        cap = self.data["cap"]
        name: str = self.data["gpu"]
        return {"name": name, "total_bytes": cap["total_bytes"]} if cap else name

    @property
    def _said_by_variables(self) -> dict[str, str]:
        """Keys of a job that say what a variable of the run did. Without Flex Attention gpt_oss falls back to eager
        (unsloth_zoo/temporary_patches/gpt_oss.py)."""
        flex_off = self.data["environment"].get("UNSLOTH_ENABLE_FLEX_ATTENTION") == "0"
        return {"attn_implementation": "eager"} if flex_off and self.family == "gpt_oss" else {}

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
        model_type = _architecture(json.dumps(self.job["model"], sort_keys=True)).model_type
        return "dense" if model_type in DENSE else model_type

    @property
    def is_training(self) -> bool:
        """Whether whole steps ran: rows of an evaluation or a generation have one peak only."""
        return self.data["backward_peak_bytes"] is not None

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
def _architecture(model: str) -> Architecture:
    return resolve_model(json.loads(model), offline=True).architecture


@cache
def _estimate_of(job: str) -> Estimate:
    parsed = parse_job(json.loads(job))
    return estimate(parsed, resolve_model(parsed.model, offline=True).architecture)


@cache
def all_rows() -> tuple[Row, ...]:
    """Every committed row."""
    return tuple(_read())


def measured_rows() -> tuple[Row, ...]:
    """The rows that ended well on a GPU: the peaks that an estimate is compared with."""
    return tuple(row for row in all_rows() if row.ended_well and row.on_gpu)


def _read() -> Iterator[Row]:
    for file in sorted(MEASUREMENTS.glob("*.jsonl")):
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            data = json.loads(line)
            ran = f"{_short(data['job']['model'])}-{data['num_hidden_layers']}x{data['sequence_length']}"
            yield Row(f"{file.stem}:{number}-{data['execution_path']}-{ran}", data)


def _short(model: str | dict[str, Any]) -> str:
    """A model's name without its owner; a config object's ``model_type``."""
    return str(model["model_type"]) if isinstance(model, dict) else model.rpartition("/")[2]


def phase_bytes(estimate: Estimate, *phases: str) -> int:
    """The widest of some phases; 0 where the estimate has none of them."""
    return max((p.allocated_bytes for p in estimate.phases if p.phase in phases), default=0)


def off_by(expected: int, measured: int) -> float:
    """Relative difference, positive where too much is expected."""
    return expected / measured - 1
