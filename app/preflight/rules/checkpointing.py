"""Above 32K tokens the layers' inputs belong on the host; and what the dense path costs beside a flattened one."""

from __future__ import annotations

from collections.abc import Iterator

from app.preflight.findings import LONG, Case, Finding, gib

DENSE_SHARE = 0.01
"""A dense path that costs less than this share of the card is not worth a word."""

ALWAYS_PADS = frozenset({"llamafactory"})
"""Tools whose trainer knows no padding-free batches."""


def long_without_unsloth_checkpointing(case: Case) -> Iterator[Finding]:
    """``checkpointing``: above 32,768 tokens without ``use_gradient_checkpointing="unsloth"``."""
    if not case.trains or case.length <= LONG or case.estimate.regime["use_gradient_checkpointing"] == "unsloth":
        return
    stock = case.job.framework == "transformers"
    changes = {"framework": "unsloth", "attn_implementation": None, "padding_free": None} if stock else {}
    costs = case.costs(use_gradient_checkpointing="unsloth", **changes)
    # Beside another trainer everything differs, its loss most of all: no single cause is given for those bytes.
    where, which = ("Unsloth's ", "more than the same job in Unsloth") if stock else ("", "which it would save")
    more = f": {gib(costs)} of GPU memory {which}" if costs and costs > 0 else ""
    message = (
        f'{case.length:,} tokens without {where}use_gradient_checkpointing "unsloth", '
        f"which keeps the inputs of the layers in host RAM{more}"
    )
    size = max(costs, 0) if costs is not None else None
    yield case.finding("checkpointing", "error", message, "use_gradient_checkpointing", size)


def dense_batches(case: Case) -> Iterator[Finding]:
    """``dense-path``: padded batches through the compiled layers hold more than flattened ones."""
    if case.estimate.execution_path != "block_compiled":
        return
    costs = case.costs(block_compile=False)
    if costs is None or costs < case.estimate.room_bytes * DENSE_SHARE:
        return
    pads = case.reading.tool in ALWAYS_PADS
    flattened = "" if pads else "padding-free batches (SFTTrainer's own choice) or "
    message = (
        f"dense batches run through compiled layers, which costs {gib(costs)}; {flattened}UNSLOTH_BLOCK_COMPILE=0 "
        f"avoid{'s' if pads else ''} it"
    )
    yield case.finding("dense-path", "warning", message, "padding_free", costs)


RULES = (long_without_unsloth_checkpointing, dense_batches)
