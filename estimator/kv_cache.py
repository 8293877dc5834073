"""Generation: the key-value cache, the prefill of the prompt, and the decoding steps.

Source: unsloth/models/llama.py ``KV_CACHE_INCREMENT`` (the cache grows by 512 rows, and a growing layer holds its
old rows while it copies them); transformers/cache_utils.py, where sliding-window layers keep their window only.
"""

from __future__ import annotations

from estimator import evaluation
from estimator.architecture import Architecture
from estimator.ledger import Instant
from estimator.resolve import Run
from estimator.sizes import Sizes
from estimator.statics import Statics

GROWTH_ROWS = 512
CACHE = "unsloth/models/llama.py KV_CACHE_INCREMENT"
STOCK_CACHE = "transformers/cache_utils.py DynamicCache"


def cache_rows(run: Run, prompt_tokens: int) -> int:
    """Rows a full-attention layer's cache ends with: the prompt and what is generated, in Unsloth's steps."""
    new = run.job.max_new_tokens
    if run.path != "eager":
        return prompt_tokens + new
    return prompt_tokens + max(1, -(-new // GROWTH_ROWS)) * GROWTH_ROWS


def cache_bytes(architecture: Architecture, sequences: int, rows: int, *, windowed: bool) -> int:
    """2 (key, value) * 2 B * B * rows * nkv hd, summed over layers; a sliding layer keeps its window where
    ``windowed``.
    """
    per_row = 2 * 2 * sequences * architecture.key_value_width
    total = 0
    for group in architecture.layers:
        window = group.sliding_window if windowed else None
        total += len(group.indices) * per_row * (min(rows, window) if window else rows)
    return total


def instants(run: Run, statics: Statics, z: Sizes) -> list[Instant]:
    """Prefill and decode of B prompts of S tokens."""
    architecture = run.architecture
    windowed = run.path != "eager"
    rows = cache_rows(run, z.length)
    source = CACHE if run.path == "eager" else STOCK_CACHE
    formula = "L * 2 * 2 B rows nkv hd"
    prompt = ("kv_cache", cache_bytes(architecture, z.sequences, z.length, windowed=windowed), formula, source)
    final = ("kv_cache", cache_bytes(architecture, z.sequences, rows, windowed=windowed), formula, source)
    growth = 2 * 2 * z.sequences * rows * architecture.key_value_width
    logits = 4 * z.sequences * architecture.vocab_size
    held = [prompt, *evaluation.streams(z)]
    return [
        Instant("prefill", "attention", [*held, *evaluation.forward_attention(run, z)]),
        Instant("prefill", "mlp", [*held, *evaluation.forward_layer(run, statics, z)]),
        Instant(
            "decode",
            "growth",
            [
                final,
                ("kv_cache_growth", growth, "2 * 2 B rows nkv hd, one layer", source),
                ("token_logits", logits, "4 B V", "logits of the last token"),
            ],
        ),
    ]
