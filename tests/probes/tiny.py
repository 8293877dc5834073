"""A model small enough for a test, as a config object, and points of it."""

from __future__ import annotations

from typing import Any

TINY: dict[str, Any] = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_window_layers": 4,
    "use_sliding_window": False,
}


def tiny_job(**changes: Any) -> dict[str, Any]:
    """A LoRA job of two layers in 16 bit, whose optimizer runs on a CPU."""
    job = {"model": TINY, "num_hidden_layers": 2, "max_seq_length": 64, "r": 4, "optim": "adamw_torch"}
    return {**job, "load_in_16bit": True, **changes}
