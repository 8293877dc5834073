"""What is measured: points of a known model for the stand-in, and among them a few of a tiny one that is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.chaos.world import Setup

MODEL = "unsloth/Llama-3.2-1B-Instruct"
TINY: dict[str, Any] = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "max_position_embeddings": 4096,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "max_window_layers": 2,
    "use_sliding_window": False,
}


def points_of(setup: Setup) -> list[dict[str, Any]]:
    """As many as there are jobs, each of another length; the real ones lie evenly among the others."""
    real = {round((number + 0.5) * setup.jobs / setup.real) for number in range(setup.real)}
    return [_real(number) if number in real else _standin(number) for number in range(setup.jobs)]


def _standin(number: int) -> dict[str, Any]:
    return {"job": {"model": MODEL, "num_hidden_layers": 2, "max_seq_length": 1024 + number}}


def _real(number: int) -> dict[str, Any]:
    job = {"model": TINY, "max_seq_length": 64 + number, "sequence_length": 64, "r": 4, "optim": "adamw_torch"}
    return {"job": {**job, "load_in_16bit": True}, "steps": 2}
