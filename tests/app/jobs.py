"""Jobs that need no network, and every way in which one can be wrong."""

from __future__ import annotations

from typing import Any

MODEL = "unsloth/Llama-3.2-1B-Instruct"

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 64,
    "vocab_size": 128256,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}


def config(**changes: Any) -> dict[str, Any]:
    """The config with some values changed, or taken out where the change is None."""
    changed = {**CONFIG, **changes}
    return {key: value for key, value in changed.items() if value is not None}


FITS: dict[str, Any] = {"model": MODEL, "max_seq_length": 4096}
DOES_NOT_FIT: dict[str, Any] = {
    "model": "meta-llama/Llama-3.1-8B-Instruct",
    "load_in_16bit": True,
    "gpu": "T4-16GB",
}

WRONG_JOBS: dict[str, tuple[dict[str, Any], str, str]] = {
    "an unknown key": ({"model": MODEL, "max_seq_lenght": 1}, "invalid-job", "max_seq_lenght"),
    "no model": ({}, "invalid-job", "model"),
    "an unknown GPU": ({"model": MODEL, "gpu": "H1000"}, "unknown-gpu", "gpu"),
    "an unknown model without the Hub": ({"model": "nobody/nothing"}, "unknown-model", "model"),
    "a directory of the server": ({"model": "/etc"}, "unknown-model", "model"),
    "an unsupported architecture": (
        {"model": config(model_type="zamba9")},
        "unsupported-architecture",
        "model.model_type",
    ),
    "a config without a dimension": (
        {"model": config(hidden_size=None)},
        "invalid-architecture",
        "model.hidden_size",
    ),
    "a config with an absurd dimension": (
        {"model": config(num_hidden_layers=10**9)},
        "invalid-architecture",
        "model.num_hidden_layers",
    ),
    "a config with a dimension of another type": (
        {"model": config(vocab_size="many")},
        "invalid-architecture",
        "model.vocab_size",
    ),
    "an empty config": ({"model": {}}, "invalid-architecture", "model.model_type"),
    "contradictory flags": (
        {"model": MODEL, "load_in_4bit": True, "full_finetuning": True},
        "invalid-job",
        "full_finetuning|load_in_4bit",
    ),
    "a negative number": ({"model": MODEL, "r": -1}, "invalid-job", "r"),
    "a huge number": ({"model": MODEL, "max_seq_length": 10**30}, "invalid-job", "max_seq_length"),
    "a fraction for a whole number": (
        {"model": MODEL, "max_seq_length": 2048.5},
        "invalid-job",
        "max_seq_length",
    ),
    "true for a number": ({"model": MODEL, "r": True}, "invalid-job", "r"),
    "text for a number": ({"model": MODEL, "r": "16"}, "invalid-job", "r"),
    "a sequence longer than its model": (
        {"model": MODEL, "max_seq_length": 10, "sequence_length": 11},
        "invalid-job",
        "sequence_length",
    ),
    "a wrong key in a nested object": (
        {"model": MODEL, "gpu": {"name": "x"}},
        "invalid-job",
        "gpu.total_bytes",
    ),
    "control characters": ({"model": "a\nb"}, "invalid-job", "model"),
    "a lone surrogate": ({"model": "\ud800"}, "invalid-job", "model"),
}
"""A job, the code of the problem that it is, and the key that the answer names (one of several, apart by
``|``)."""

WRONG_JSON: dict[str, bytes] = {
    "nothing": b"",
    "half a document": b'{"model":',
    "two documents": b"{}{}",
    "NaN": b'{"model": "x", "confidence": NaN}',
    "Infinity": b'{"model": "x", "confidence": -Infinity}',
    "a float that overflows": b'{"model": "x", "confidence": 1e999}',
    "a number of five thousand digits": b'{"r": ' + b"9" * 5000 + b"}",
    "a key given twice": b'{"r": 1, "r": 2}',
    "nesting that exhausts a parser": b"[" * 200_000,
    "nesting that only a walk finds": b'{"model": ' + b"[" * 100 + b"]" * 100 + b"}",
    "bytes that are not UTF-8": b'{"model": "\xff"}',
    "UTF-16": '{"model": "x"}'.encode("utf-16"),
}
