"""A small config of every family, with the flags that change its parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_SIZES: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 112,
    "num_hidden_layers": 5,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "vocab_size": 320,
}
_EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
_LOCAL_EXPERTS = {"num_local_experts": 6, "num_experts_per_tok": 2}

BASE: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {"head_dim": 12},
    "gemma": {"head_dim": 12},
    "gemma2": {"head_dim": 12},
    "gemma3_text": {"head_dim": 12},
    "phi3": {"pad_token_id": 0},
    "granite": {},
    "cohere": {},
    "mixtral": _LOCAL_EXPERTS,
    "qwen2_moe": {**_EXPERTS, "shared_expert_intermediate_size": 40},
    "qwen3_moe": {**_EXPERTS, "head_dim": 12},
    "gpt_oss": {**_LOCAL_EXPERTS, "head_dim": 12},
}

VARIATIONS: dict[str, list[dict[str, Any]]] = {
    "llama": [{"attention_bias": True}, {"mlp_bias": True}, {"head_dim": 24}, {"num_key_value_heads": None}],
    "mistral": [{"head_dim": 24}, {"sliding_window": 16}, {"head_dim": None}],
    "qwen2": [{"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2}],
    "qwen3": [{"attention_bias": True}, {"num_key_value_heads": None}],
    "gemma": [{"attention_bias": True}, {"num_key_value_heads": 8}],
    "gemma2": [{"attention_bias": True}, {"layer_types": ["full_attention"] * 5}],
    "gemma3_text": [{"attention_bias": True}, {"sliding_window_pattern": 2}],
    "phi3": [{"num_key_value_heads": None}, {"sliding_window": 16}],
    "granite": [{"attention_bias": True, "mlp_bias": True}, {"num_key_value_heads": None}],
    "cohere": [{"use_qk_norm": True}, {"attention_bias": True}],
    "mixtral": [{"head_dim": 24}, {"num_local_experts": 1, "num_experts_per_tok": 1}],
    "qwen2_moe": [{"qkv_bias": False}, {"decoder_sparse_step": 2}, {"mlp_only_layers": [0, 3]}],
    "qwen3_moe": [{"decoder_sparse_step": 3}, {"mlp_only_layers": [4]}, {"attention_bias": True}],
    "gpt_oss": [{"attention_bias": False}, {"num_key_value_heads": 8}],
}
_EVERYWHERE: list[dict[str, Any]] = [
    {},
    {"tie_word_embeddings": True},
    {"tie_word_embeddings": False},
    {"num_hidden_layers": 1},
]


def small_config(model_type: str, **changes: Any) -> dict[str, Any]:
    """The family's small config, with some keys changed."""
    return {"model_type": model_type, **_SIZES, **BASE[model_type], **changes}


def all_small_configs() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every family with each of its variations, named."""
    for model_type in BASE:
        for changes in _EVERYWHERE + VARIATIONS[model_type]:
            name = ",".join(f"{key}={value}" for key, value in changes.items()) or "as it is"
            yield f"{model_type}: {name}", small_config(model_type, **changes)
