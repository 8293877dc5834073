"""The job that is measured: a long-context QLoRA run of a catalogued model, which needs no network."""

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
