"""Calibrated coefficients at work: what a path keeps beyond what its structure says, in multiples of its widths.

What torch.compile and Unsloth's generated modules keep cannot be written down for a model that nobody has looked at.
`probes.fitting` fits, for a path, a group of instants and a kind of model, how many more (or fewer) tensors of each
width are alive than the structure counts; never fewer than none. They are rows of the ledger like any other, with the
calibration as their source.
"""

from __future__ import annotations

from collections.abc import Mapping

from estimator.ledger import Instant, Row
from estimator.moe import experts_of
from estimator.resolve import Run
from estimator.sizes import Sizes
from estimator.statics import largest_projection

CORRECTED_PATHS = ("block_compiled", "generated")
"""The eager and transformers paths are written down: they have no coefficients."""

GROUPS = ("forward", "loss", "backward")


def kind_of(run: Run) -> str:
    """Runs that share their coefficients: by what holds the weights, and what the layers are made of."""
    if run.job.full_finetuning:
        return "full_finetuning"
    if run.storage in ("int8", "fp8"):
        return run.storage
    if run.architecture.attention_sinks:
        return "sinks"
    return "experts" if run.architecture.is_moe else "dense"


def group_of(instant: Instant) -> str | None:
    """Which coefficients an instant takes: of the layers' forward, of the loss, or of the layers' backward."""
    if instant.phase == "loss" or (instant.phase == "backward" and instant.name == "loss"):
        return "loss"
    return instant.phase if instant.phase in GROUPS else None


def widths(run: Run, z: Sizes) -> dict[str, int]:
    """Bytes of one 16-bit tensor of each width (`estimator.calibration.document.WIDTHS`)."""
    sizes = {"hidden": z.u, "attention": z.q, "key_value": z.kv, "logits": 2 * z.tokens * run.architecture.vocab_size}
    if run.quantised:
        sizes["weight"] = 2 * largest_projection(run.architecture)
    experts = experts_of(run.architecture)
    if experts is None:
        return {**sizes, "mlp": z.m}
    routed = 2 * z.tokens * experts.per_token
    return {
        **sizes,
        "routed": routed * run.architecture.hidden_size,
        "expert": routed * 2 * experts.intermediate_size,
    }


def corrected(run: Run, z: Sizes, instants: list[Instant]) -> list[Instant]:
    """The instants with what their coefficients add."""
    if not run.calibration.corrections or run.path not in CORRECTED_PATHS:
        return instants
    sizes, kind = widths(run, z), kind_of(run)
    return [_corrected(run, instant, sizes, kind) for instant in instants]


def _corrected(run: Run, instant: Instant, sizes: Mapping[str, int], kind: str) -> Instant:
    found = run.calibration.corrections.get(f"{run.path}/{group_of(instant)}/{kind}")
    if not found:
        return instant
    rows: list[Row] = [
        (
            f"calibrated_{width}",
            int(multiple * sizes[width]),
            f"{multiple:+.3f} of a tensor as wide as {width}",
            f"calibration {run.calibration.id}",
        )
        for width, multiple in found.items()
        if width in sizes
    ]
    return instant._replace(rows=[*instant.rows, *rows])
