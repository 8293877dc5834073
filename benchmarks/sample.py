"""The jobs that are measured, of catalogued models, which need no network: a long QLoRA run, and two to change."""

from __future__ import annotations

import json
from typing import Any

JOB: dict[str, Any] = {
    "model": "unsloth/Llama-3.3-70B-Instruct-bnb-4bit",
    "gpu": "H100-80GB",
    "max_seq_length": 40000,
    "r": 32,
}
BODY = json.dumps(JOB).encode()

DENSE: dict[str, Any] = {**JOB, "max_seq_length": 89_389, "padding_free": False}
TANGLED: dict[str, Any] = {
    "model": "unsloth/Llama-3.1-8B-Instruct",
    "gpu": "RTX-4090-24GB",
    "max_seq_length": 32_768,
    "per_device_train_batch_size": 64,
    "load_in_16bit": True,
    "r": 256,
    "modules_to_save": ["embed_tokens", "lm_head"],
    "use_gradient_checkpointing": False,
    "optim": "adamw_torch",
    "padding_free": False,
    "offload_embedding": False,
    "per_device_eval_batch_size": 16,
}
