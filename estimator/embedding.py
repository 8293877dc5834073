"""Where the input embedding lives: on the GPU, or on the host where Unsloth finds the card too full for a training
step.

Source: unsloth/models/_utils.py ``offload_embedding_if_tight`` (after the load, and again in ``get_peft_model``);
unsloth_zoo/block_swap.py ``estimate_training_reserve_bytes``.
"""

from __future__ import annotations

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
    """Whether the embedding leaves the GPU.

    The rule reads driver-free plus reserved minus allocated memory, which is the card's total less the context and what
    is allocated at that moment.
    """
    job, architecture = run.job, run.architecture
    if job.framework != "unsloth" or architecture.tie_word_embeddings or job.full_finetuning:
        return False
    if "embed_tokens" in job.modules_to_save:
        return False
    if job.offload_embedding != "auto":
        return job.offload_embedding
    loaded = statics.weights.total + statics.workspace_bytes
    usable = run.device.usable_bytes - loaded
    if usable < training_reserve_bytes(architecture, max_seq_length, 0):
        return True
    elements = statics.trainable.lora_elements
    return usable - statics.trained_bytes < training_reserve_bytes(architecture, max_seq_length, elements)
