"""What Unsloth does to a model's rotary embedding at a given ``max_seq_length``, and the cache it costs.

Source: unsloth/models/llama.py ``from_pretrained`` and ``_extended_rope_scaling``; ``_round_rope_size``,
``_PerDeviceRopeCache``.
"""

from __future__ import annotations

from typing import Any

from estimator.architecture import Architecture, Rope

ROPE_STEP = 8192
EAGER_START = 4 * ROPE_STEP


def describe_rope(rope: Rope, max_seq_length: int, *, extends: bool) -> dict[str, Any]:
    """How positions beyond the native length are reached.

    Args:
        extends: whether the stack widens RoPE by itself (Unsloth does, plain transformers leaves the config alone).
    """
    native = rope.native_length
    described = {"native_length": native, "theta": rope.theta, "max_seq_length": max_seq_length, "factor": 1.0}
    if max_seq_length <= native:
        kept = "the config's own scaling" if rope.scaling != "default" else "as configured, no scaling"
        return {**described, "scaling": rope.scaling, "note": f"within the native length: {kept}"}
    if not extends:
        note = "beyond the native length with the RoPE of the config: expect lost quality past it"
        return {**described, "scaling": rope.scaling, "note": note}
    if rope.scaling == "llama3":
        note = "beyond the native length: Unsloth keeps the llama3 scaling and widens the cache only"
        return {**described, "scaling": "llama3", "note": note}
    factor = max_seq_length / native
    note = (
        f"beyond the native length: Unsloth replaces the {rope.scaling} RoPE by linear scaling, factor {factor:.3f}; "
        "if quality is lost, look at the data's long-range samples and at the RoPE base"
    )
    return {**described, "scaling": "linear", "factor": factor, "note": note}


FLOAT32_TABLES = frozenset({"gemma", "gemma2"})


def cache_rows(rope: Rope, max_seq_length: int, tokens: int, *, positions_given: bool) -> int:
    """Rows of the cos and sin tables that one device holds.

    Packed and padding-free batches pass ``position_ids``, which can index any row below max_position_embeddings; a
    dense batch builds what max_seq_length needs, in steps of 8,192.
    """
    longest = max(max_seq_length, tokens)
    limit = max(rope.native_length, longest)
    needed = limit if positions_given else longest
    rounded = -(-needed // ROPE_STEP) * ROPE_STEP
    return min(limit, max(EAGER_START, rounded))


def cache_bytes(architecture: Architecture, rows: int) -> int:
    """2 tables (cos, sin) * rows * head_dim * 2 B, shared by all layers; 4 B for Gemma's.

    Source: unsloth/models/gemma.py ``GemmaFixedRotaryEmbedding._set_cos_sin_cache``, which keeps them in 32 bit;
    measured: gemma-2-9b, 8 MiB more than in 16.
    """
    itemsize = 4 if architecture.model_type in FLOAT32_TABLES else 2
    return 2 * rows * architecture.head_dim * itemsize
