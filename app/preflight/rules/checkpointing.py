"""Above 32K tokens the layers' inputs belong on the host; and what the dense path costs beside a flattened one."""

from __future__ import annotations

from collections.abc import Iterator

from app.preflight.findings import LONG, Case, Finding, gib

DENSE_SHARE = 0.01
"""A dense path that costs less than this share of the card is not worth a word."""


def long_without_unsloth_checkpointing(case: Case) -> Iterator[Finding]:
    """``checkpointing``: above 32,768 tokens without ``use_gradient_checkpointing="unsloth"``."""
    if not case.trains or case.length <= LONG or case.estimate.regime["use_gradient_checkpointing"] == "unsloth":
        return
    stock = case.job.framework == "transformers"
    changes = {"framework": "unsloth", "attn_implementation": None, "padding_free": None} if stock else {}
    costs = case.costs(use_gradient_checkpointing="unsloth", **changes)
    where = "Unsloth's " if stock else ""
    more = f", which costs {gib(costs)} of GPU memory" if costs and costs > 0 else ""
    message = (
        f'{case.length:,} tokens without {where}use_gradient_checkpointing "unsloth"{more}; '
        "it keeps the inputs of the layers in host RAM"
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
    message = (
        f"dense batches run through compiled layers, which costs {gib(costs)}; padding-free batches (SFTTrainer's own "
        "choice) or UNSLOTH_BLOCK_COMPILE=0 avoid it"
    )
    yield case.finding("dense-path", "warning", message, "padding_free", costs)


RULES = (long_without_unsloth_checkpointing, dense_batches)
