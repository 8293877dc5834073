"""Attention: which kernel runs, what it keeps for its backward, and what that backward needs.

Source: unsloth/utils/attention_dispatch.py ``_run_attention``, ``_cudnn_length_bucketed_sdpa``, ``_training_sdpa``.
Symbols: q, kv as in `estimator.architecture`; q', kv' the same padded to cuDNN's bucket.
"""

from __future__ import annotations

from typing import NamedTuple

from estimator.ledger import LiveSet
from estimator.resolve import Run
from estimator.sizes import Sizes

CUDNN_BUCKET = 128
DISPATCH = "unsloth/utils/attention_dispatch.py"
CUDNN = f"{DISPATCH} _cudnn_length_bucketed_sdpa"
RUN_ATTENTION = f"{DISPATCH} _run_attention"
COPY = "unsloth/models/llama.py LlamaAttention_fast_forward, A.reshape, saved by LoRA_W"
QKV = "unsloth/kernels/fast_lora.py LoRA_QKV"
QKV_FORWARD = f"{QKV}.forward"
SOFTCAP = "unsloth/kernels/flex_attention.py slow_attention_softcapping"


class Padded(NamedTuple):
    """Tokens, and bytes of q and kv, with the length padded by 1 to 128 tokens, as the cuDNN route always does."""

    tokens: int
    q: int
    kv: int


def padded(run: Run, z: Sizes) -> Padded:
    """q' and kv': B * (S + 128 - S mod 128) tokens; a flattened batch pads each of its documents so."""
    tokens = z.sequences * (z.length + CUDNN_BUCKET - z.length % CUDNN_BUCKET)
    architecture = run.architecture
    return Padded(tokens, 2 * tokens * architecture.query_width, 2 * tokens * architecture.key_value_width)


def saved_for_backward(run: Run, z: Sizes) -> LiveSet:
    """What one attention block holds until its own backward: the kernel's inputs and output, and o_proj's input."""
    kernel = run.kernel
    terms = _normed(run, z)
    if kernel == "cudnn":
        p = padded(run, z)
        return [
            *terms,
            ("attention_query", p.q, "2 T' nh hd", CUDNN),
            ("attention_key_value", 2 * p.kv, "2 * 2 T' nkv hd", CUDNN),
            ("attention_output", p.q, "2 T' nh hd", CUDNN),
            ("attention_output_copy", z.q if run.fused.o else 0, "2 T nh hd", COPY),
            (
                "attention_logsumexp",
                4 * p.tokens * run.architecture.num_attention_heads,
                "4 T' nh",
                "cuDNN attention statistics",
            ),
        ]
    expanded = kernel in ("xformers", "efficient", "softcap_compiled")
    terms += [
        ("attention_query", z.q, "2 T nh hd", RUN_ATTENTION),
        (
            "attention_key_value",
            2 * (z.q if expanded else z.kv),
            "2 * 2 T nkv hd (nh where expanded)",
            RUN_ATTENTION,
        ),
        ("attention_output", z.q, "2 T nh hd", RUN_ATTENTION),
    ]
    if kernel == "softcap_compiled":
        capped = "2 * 2 B nh S^2, capped and normalised"
        return [*terms, ("attention_scores", score_bytes(run, z, 4), capped, SOFTCAP)]
    if kernel == "eager":
        return [*terms, ("attention_scores", score_bytes(run, z, 2), "2 B nh S^2", SOFTCAP)]
    terms.append(("attention_logsumexp", 4 * z.tokens * run.architecture.num_attention_heads, "4 T nh", "softmax_lse"))
    if run.flattened and kernel in ("flash", "efficient"):
        terms.append(("attention_output_copy", z.q, "2 T nh hd", f"{DISPATCH} _sdpa_packed_segments, torch.cat"))
    return terms


def forward_working_set(run: Run, z: Sizes) -> LiveSet:
    """The attention block at o_proj in a forward whose graph is not kept: all its tensors are still in scope."""
    kernel = run.kernel
    projections = ("query_key_value", z.q + 2 * z.kv, "q + 2 kv", QKV_FORWARD)
    if kernel == "cudnn":
        p = padded(run, z)
        output = ("attention_output", p.q, "2 T' nh hd", CUDNN)
        copy = ("attention_output_copy", z.q, "2 T nh hd", COPY)
        return [projections, output, copy]
    output = ("attention_output", z.q, "2 T nh hd", RUN_ATTENTION)
    if kernel == "softcap_compiled":
        # The compiled kernel reads grouped keys and values where they lie: measured, gemma-2-9b at 8,192 tokens.
        return [projections, output, ("attention_scores", score_bytes(run, z, 2), "2 B nh S^2", SOFTCAP)]
    if run.flattened and kernel in ("flash", "efficient"):
        return [projections, output, ("attention_output_copy", *output[1:])]
    return [projections, output]


def backward_working_set(run: Run, z: Sizes) -> LiveSet:
    """What the kernel's backward adds to what was saved: gradients of its inputs and output, and its workspace.

    Measured: a soft-capped kernel holds four copies of the scores in all (gemma-2-9b at 2,048 to 8,192 tokens, H200),
    and the cuDNN workspace is an fp32 query gradient, 16-bit expanded key and value gradients where heads are
    grouped, and 4 B a head and token (1,082,147,328 B for 8B at 32,768 tokens).
    """
    kernel = run.kernel
    heads = run.architecture.num_attention_heads
    grouped = run.architecture.num_key_value_heads != heads
    if kernel in ("softcap_compiled", "eager"):
        copies = 2 if kernel == "softcap_compiled" else 3
        return [
            ("attention_score_gradients", score_bytes(run, z, 2 * copies), f"{2 * copies} B nh S^2", SOFTCAP),
            ("attention_output_gradient", z.q, "2 T nh hd", SOFTCAP),
        ]
    p = padded(run, z) if kernel == "cudnn" else Padded(z.tokens, z.q, z.kv)
    workspace = 2 * p.q + (2 * p.q if grouped else 0) + 4 * p.tokens * heads
    return [
        ("attention_output_gradient", p.q, "2 T' nh hd", "gradient of the kernel's output"),
        ("attention_query_gradient", p.q, "2 T' nh hd", "gradient of the kernel's query"),
        ("attention_key_value_gradient", 2 * p.kv, "2 * 2 T' nkv hd", "gradients of the kernel's key and value"),
        (
            "attention_workspace",
            workspace,
            "4 T' nh hd (twice where grouped) + 4 T' nh",
            "flash and cuDNN backward kernels",
        ),
    ]


def masks(run: Run, z: Sizes) -> LiveSet:
    """Dense masks that outlive a step: sliding windows where the kernel takes no window, and Gemma 2's two static
    masks.
    """
    if run.kernel == "softcap_compiled":
        return [
            (
                "attention_masks",
                2 * 2 * z.max_seq_length**2,
                "2 * 2 max_seq_length^2",
                "unsloth/models/llama.py SWA_mask, GA_mask",
            )
        ]
    windows = [g.sliding_window for g in run.architecture.layers if g.sliding_window]
    if run.path == "transformers" or run.attention != "sdpa" or not any(w < z.length for w in windows):
        return []
    itemsize = 2 if run.flattened else 1
    return [
        ("attention_masks", itemsize * z.length**2, "S^2 (2 S^2 where packed)", f"{DISPATCH} _windowed_causal_mask")
    ]


def _normed(run: Run, z: Sizes) -> LiveSet:
    """Query and key before their norms, which the norms' backward reads."""
    if not run.architecture.qk_norm:
        return []
    return [("query_key_before_norm", z.q + z.kv, "q + kv", "unsloth/models/qwen3.py Qwen3Attention_fast_forward")]


def score_bytes(run: Run, z: Sizes, bytes_each: int) -> int:
    """Attention scores of all heads where a kernel holds them: B nh S^2 elements."""
    return bytes_each * z.sequences * run.architecture.num_attention_heads * z.length**2
