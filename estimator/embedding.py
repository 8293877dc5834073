"""Where the input embedding lives: on the GPU, or on the host where Unsloth finds the card too full for a training
step.

Source: unsloth/models/_utils.py ``offload_embedding_if_tight`` (after the load, and again in ``get_peft_model``);
unsloth_zoo/block_swap.py ``estimate_training_reserve_bytes``.
"""

from __future__ import annotations

from typing import Literal

from estimator.allocator import MIB
from estimator.architecture import Architecture
from estimator.resolve import Run
from estimator.statics import Statics

BYTES_PER_TOKEN_HIDDEN = 48
LOGIT_ROWS = 2048
SAFETY_BYTES = 256 * MIB


def training_reserve_bytes(architecture: Architecture, max_seq_length: int, trainable_elements: int) -> int:
    """17/16 * (48 T H + 4 V min(T, 2048) + 16 * trained elements) + 256 MiB, with T = max_seq_length and a batch of
    1.
    """
    activations = max_seq_length * architecture.hidden_size * BYTES_PER_TOKEN_HIDDEN
    logits = min(max_seq_length, LOGIT_ROWS) * architecture.vocab_size * 4
    base = activations + logits + 16 * trainable_elements
    return base + base // 16 + SAFETY_BYTES


def embedding_offloaded(run: Run, statics: Statics, max_seq_length: int) -> bool:
    """Whether the embedding leaves the GPU before training."""
    return embedding_leaves_after(run, statics, max_seq_length) is not None


def embedding_leaves_after(run: Run, statics: Statics, max_seq_length: int) -> Literal["load", "peft"] | None:
    """After which phase the embedding leaves the GPU; None where it stays.

    The rule reads driver-free plus reserved minus allocated memory, which is the card's total less the context and what
    is allocated at that moment. Measured: Llama-3.3-70B on an H100 80GB, after the load at 111,931 tokens and after
    ``get_peft_model`` at 89,389.
    """
    job, architecture = run.job, run.architecture
    if job.framework != "unsloth" or architecture.tie_word_embeddings or job.full_finetuning:
        return None
    if "embed_tokens" in job.modules_to_save:
        return None
    if job.offload_embedding != "auto":
        return "load" if job.offload_embedding else None
    loaded = statics.weights.total + statics.workspace_bytes
    usable = run.device.usable_bytes - loaded
    if usable < training_reserve_bytes(architecture, max_seq_length, 0):
        return "load"
    elements = statics.trainable.lora_elements
    tight = usable - statics.trained_bytes < training_reserve_bytes(architecture, max_seq_length, elements)
    return "peft" if tight else None
