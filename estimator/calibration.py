"""From allocated bytes to reserved and device bytes, and the bounds around them, where no fitted calibration is given.

Every number here was read off the measured rows under ``evidence/measurements`` (one H100 and one H200, torch 2.11):
the margins are the largest deviation seen on rows of their kind, rounded up, so the bound is true of those rows by
construction; the tests hold it so.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, NamedTuple

from estimator.allocator import MIB
from estimator.resolve import Run
from estimator.sizes import Sizes
from estimator.stack import MEASURED_STACK

STRUCTURAL: dict[str, Any] = {"id": "structural", "points": 0}
"""What an answer names when no measurement was fitted: formulas from the source, and margins from the measured rows."""

LOADED_MODULES_BYTES = 171_966_464
"""What the driver counts beside context and reserved memory once kernels have been loaded: 890,044,416 B in all on
an H100.
"""

PRESSURE_SLACK_BYTES = 64 * MIB
PRESSURE_SLACK_UPPER_BYTES = 320 * MIB
"""What expandable segments cannot give back when the card is full: partly used pages (and kernels loaded beyond the
usual).
"""

MORE_MODULES_BYTES = 64 * MIB
"""Kernels beyond the usual, in the upper bound: two rows with compiled soft-capping needed 20 MB more."""


class Margins(NamedTuple):
    """Relative margins of one kind of run.

    Attributes:
        allocated: how far above the expected peak a measured one was. reserved, reserved_upper: reserved beyond
        allocated where the card has room, in the median and at most.
    """

    allocated: float
    reserved: float
    reserved_upper: float


PATH_MARGINS = {
    "eager": Margins(allocated=0.01, reserved=0.016, reserved_upper=0.08),
    "block_compiled": Margins(allocated=0.035, reserved=0.046, reserved_upper=0.09),
    "generated": Margins(allocated=0.12, reserved=0.075, reserved_upper=0.44),
    "transformers": Margins(allocated=0.02, reserved=0.185, reserved_upper=0.58),
}
TILED_RESERVED, TILED_RESERVED_UPPER = 0.08, 0.11

DECISIVE = ("torch", "transformers", "unsloth", "unsloth_zoo", "bitsandbytes")
"""Packages whose version decides memory."""

UNREAD_4BIT = (
    "for a 4-bit load Unsloth takes {}, which keeps some layers in 16 bit; its list of them was not read, and every "
    "linear is planned in 4 bit (that repository's config object or directory is planned exactly)"
)

CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
CONFIDENCE_FACTORS = (0.0, 0.154, 0.319, 0.512, 0.779, 1.0, 1.414)
"""Quantiles of the normal distribution over its 95 % quantile: how a 95 % margin becomes another confidence's."""

MEASURED_FAMILIES = {
    "eager": frozenset({"llama", "mistral", "qwen2", "qwen3"}),
    "transformers": frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma2"}),
}
MEASURED_TOKENS = {"eager": 111_931, "block_compiled": 89_389, "generated": 16_384, "transformers": 16_384}
"""The longest micro-batch measured on each path; the shortest was 128 tokens."""


class Evidence(NamedTuple):
    """Whether a run lies inside what was measured, and how wide its bound is.

    Attributes:
        margin: relative margin of the allocated peak at 95 %. reasons: why it lies outside, one sentence each.
    """

    margin: float
    reasons: tuple[str, ...]

    @property
    def inside(self) -> bool:
        return not self.reasons


def weigh_evidence(run: Run, z: Sizes) -> Evidence:
    """Compare a run with the measured rows."""
    margin = PATH_MARGINS[run.path].allocated
    reasons: list[tuple[float, str]] = []
    if run.path in ("block_compiled", "generated"):
        reasons.append(
            (0.0, f"the {run.path} path is what torch.compile makes of it: read from snapshots of a few shapes")
        )
    elif run.architecture.model_type not in MEASURED_FAMILIES[run.path]:
        reasons.append(
            (0.02, f"{run.architecture.model_type} was measured on few rows of the {run.path} path, or on none")
        )
    if run.device.compute_capability[0] != 9:
        reasons.append(
            (0.05, f"measured on Hopper only: attention kernels and workspaces of the {run.device.name} are structural")
        )
    elif run.attention != "sdpa" and run.path != "generated":
        reasons.append((0.05, f"{run.attention} was not measured: its memory follows from its source"))
    most = MEASURED_TOKENS[run.path]
    if z.tokens > most:
        reasons.append((0.01, f"{z.tokens:,} tokens in a micro-batch are more than the {most:,} that were measured"))
    reasons += _unusual(run)
    return Evidence(margin=margin + sum(extra for extra, _ in reasons), reasons=tuple(text for _, text in reasons))


def _unusual(run: Run) -> list[tuple[float, str]]:
    job = run.job
    unusual: list[tuple[float, str]] = []
    if run.architecture.unread_4bit and run.storage.startswith("nf4") and job.framework == "unsloth":
        unusual.append((0.05, UNREAD_4BIT.format(run.architecture.unread_4bit)))
    if job.unsloth_tiled_mlp and run.path == "generated":
        unusual.append((0.0, "unsloth_tiled_mlp is not modelled on the generated path: planned as if it were off"))
    changed = [f"{name} {job.versions[name]}" for name in DECISIVE if job.versions[name] != MEASURED_STACK[name]]
    if changed:
        unusual.append((0.03, f"{', '.join(changed)}: another version was measured"))
    if job.mode == "generate":
        unusual.append((0.05, "generation was measured on one shape"))
    if job.lora_dropout and run.path != "transformers":
        unusual.append((0.02, "LoRA dropout was measured on one shape"))
    if run.own_forward and not (run.fused.qkv and run.fused.o and run.fused.mlp):
        unusual.append((0.02, "projections without LoRA leave the fused kernels: measured on one shape"))
    if run.storage in ("int8", "fp8"):
        unusual.append((0.1, f"{run.storage} weights were measured on one shape, or not at all"))
    if job.full_finetuning and run.path == "generated":
        unusual.append((0.03, "full fine-tuning was measured on two small shapes"))
    if job.modules_to_save:
        unusual.append((0.03, "modules_to_save were not measured"))
    if job.per_device_eval_batch_size:
        unusual.append((0.01, "evaluation was measured on one shape"))
    if run.stack.rounds_up:
        unusual.append((0.031, "torch before 2.10 rounds blocks up by as much as 3.1 %"))
    return unusual


def confidence_factor(confidence: float) -> float:
    """How many 95 % margins a confidence takes; linear between the table's points."""
    i = min(bisect_right(CONFIDENCES, confidence), len(CONFIDENCES) - 1)
    low, high = CONFIDENCES[i - 1], CONFIDENCES[i]
    share = (confidence - low) / (high - low)
    return CONFIDENCE_FACTORS[i - 1] + share * (CONFIDENCE_FACTORS[i] - CONFIDENCE_FACTORS[i - 1])


def reserved_bytes(run: Run, allocated_bytes: int, *, upper: bool = False, beside_bytes: int = 0) -> int:
    """Reserved for an allocated peak: with fragmentation where there is room, else what is left of the card.

    Args:
        beside_bytes: what else the process keeps on the device, unknown to torch (managed memory).
    """
    least = least_reserved_bytes(run, allocated_bytes, upper=upper)
    return min(with_fragmentation(run, allocated_bytes, upper=upper), max(least, room_bytes(run) - beside_bytes))


def least_reserved_bytes(run: Run, allocated_bytes: int, *, upper: bool = False) -> int:
    """What must be reserved for an allocated peak when the allocator gives back all that it can."""
    slack = PRESSURE_SLACK_UPPER_BYTES if upper else PRESSURE_SLACK_BYTES
    return min(allocated_bytes + slack, with_fragmentation(run, allocated_bytes, upper=upper))


def with_fragmentation(run: Run, allocated_bytes: int, *, upper: bool = False) -> int:
    """Reserved on a card with room to spare, where freed blocks stay with the process."""
    margins = PATH_MARGINS[run.path]
    share = margins.reserved_upper if upper else margins.reserved
    if run.job.unsloth_tiled_mlp:
        share = max(share, TILED_RESERVED_UPPER if upper else TILED_RESERVED)
    return allocated_bytes + int(allocated_bytes * share)


def room_bytes(run: Run) -> int:
    """What torch can reserve on the device once its kernels are loaded."""
    return run.device.usable_bytes - LOADED_MODULES_BYTES
