"""Whether a run lies inside what was measured, and by how much its bound is wider where it does not."""

from __future__ import annotations

from typing import NamedTuple

from estimator.calibration import structural
from estimator.calibration.document import MEMORY_MODEL, Measured
from estimator.device import find_device
from estimator.errors import UnknownDevice
from estimator.resolve import Run
from estimator.sizes import Sizes
from estimator.stack import MEASURED_STACK

DECISIVE = ("torch", "transformers", "unsloth", "unsloth_zoo", "bitsandbytes")
"""Packages whose version decides memory."""

UNREAD_4BIT = (
    "for a 4-bit load Unsloth takes {}, which keeps some layers in 16 bit; its list of them was not read, and every "
    "linear is planned in 4 bit (that repository's config object or directory is planned exactly)"
)


class Reason(NamedTuple):
    """Why a run lies outside the measured range, in a sentence, and the relative margin that is added for it."""

    margin: float
    text: str


def reasons(run: Run, z: Sizes) -> list[Reason]:
    """Compare a run with what its calibration, or the structure's own margins, were read from."""
    return [*_fitted_to_another_model(run), *_shape(run, z), *_card(run), *_versions(run), *_unusual(run)]


def _fitted_to_another_model(run: Run) -> list[Reason]:
    if run.calibration.memory_model == MEMORY_MODEL:
        return []
    return [Reason(0.02, "the calibration was fitted with another version of the memory model: fit it again")]


def measured_tokens(run: Run) -> int:
    """Tokens of the longest micro-batch that was measured on the run's path."""
    measured = run.calibration.measured.get(run.path)
    return measured.tokens.most if measured else structural.MEASURED_TOKENS[run.path]


def _shape(run: Run, z: Sizes) -> list[Reason]:
    measured = run.calibration.measured.get(run.path) if run.calibration.fitted else structural.MEASURED.get(run.path)
    if run.calibration.fitted and measured is None:
        return [Reason(0.05, f"no point of the {run.path} path is in the calibration: its margins are structural")]
    found = []
    if not run.calibration.fitted and run.path in ("block_compiled", "generated"):
        found.append(
            Reason(0.0, f"the {run.path} path is what torch.compile makes of it: read from snapshots of a few shapes")
        )
    family = run.architecture.model_type
    if measured and family not in measured.families:
        found.append(Reason(0.02, f"{family} was measured on few rows of the {run.path} path, or on none"))
    found += _beyond(run, measured) if measured else []
    most = measured_tokens(run)
    if z.tokens > most:
        found.append(
            Reason(0.01, f"{z.tokens:,} tokens in a micro-batch are more than the {most:,} that were measured")
        )
    return found


def _beyond(run: Run, measured: Measured) -> list[Reason]:
    found = []
    for name, what in (("hidden_size", "a hidden size of"), ("num_hidden_layers", "a depth of")):
        value, covered = getattr(run.architecture, name), getattr(measured, name)
        if not covered.least <= value <= covered.most:
            text = f"{what} {value:,} is outside the {covered.least:,} to {covered.most:,} that were measured"
            found.append(Reason(0.005, text))
    return found


def _card(run: Run) -> list[Reason]:
    device = run.device
    if device.compute_capability[0] != 9:
        text = f"measured on Hopper only: attention kernels and workspaces of the {device.name} are structural"
        return [Reason(0.05, text)]
    if run.calibration.fitted and _kind(device.name) not in run.calibration.gpus:
        nearest = ", ".join(run.calibration.gpus)
        return [Reason(0.005, f"no point was measured on the {device.name}: taken as the {nearest}")]
    if run.attention != "sdpa" and run.path != "generated":
        return [Reason(0.05, f"{run.attention} was not measured: its memory follows from its source")]
    return []


def _kind(name: str) -> str:
    try:
        return find_device(name).name
    except UnknownDevice:
        return name


def _versions(run: Run) -> list[Reason]:
    known = run.calibration.versions
    changed = []
    for name in DECISIVE:
        version = run.job.versions[name]
        if version not in known.get(name, (MEASURED_STACK[name],)):
            changed.append(f"{name} {version}")
    return [Reason(0.03, f"{', '.join(changed)}: another version was measured")] if changed else []


def _unusual(run: Run) -> list[Reason]:
    job = run.job
    unusual: list[Reason] = []
    if run.architecture.unread_4bit and run.storage.startswith("nf4") and job.framework == "unsloth":
        unusual.append(Reason(0.05, UNREAD_4BIT.format(run.architecture.unread_4bit)))
    if job.unsloth_tiled_mlp and run.path == "generated":
        unusual.append(
            Reason(0.0, "unsloth_tiled_mlp is not modelled on the generated path: planned as if it were off")
        )
    if job.mode == "generate":
        unusual.append(Reason(0.05, "generation was measured on one shape"))
    if job.lora_dropout and run.path != "transformers":
        unusual.append(Reason(0.02, "LoRA dropout was measured on one shape"))
    if run.own_forward and not (run.fused.qkv and run.fused.o and run.fused.mlp):
        unusual.append(Reason(0.02, "projections without LoRA leave the fused kernels: measured on one shape"))
    if run.storage in ("int8", "fp8"):
        unusual.append(Reason(0.1, f"{run.storage} weights were measured on one shape, or not at all"))
    if job.full_finetuning and run.path == "generated":
        unusual.append(Reason(0.03, "full fine-tuning was measured on two small shapes"))
    if job.modules_to_save:
        unusual.append(Reason(0.03, "modules_to_save were not measured"))
    if job.per_device_eval_batch_size:
        unusual.append(Reason(0.01, "evaluation was measured on one shape"))
    if run.stack.rounds_up:
        unusual.append(Reason(0.031, "torch before 2.10 rounds blocks up by as much as 3.1 %"))
    return unusual
