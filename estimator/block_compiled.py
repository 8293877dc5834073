"""The block_compiled path: one torch.compile region a decoder layer, for dense batches.

What a compiled region keeps is chosen by AOTAutograd's partitioner and Inductor, so it cannot be derived from
Unsloth's source. These sets were read from allocator snapshots (torch 2.11, H200: Llama-3.1-8B, Llama-3.2-1B,
Qwen2.5-7B and Qwen3-8B shapes) and hold for torch versions that partition alike. The in-place tricks of the eager
kernels are off while tracing.
"""

from __future__ import annotations

from estimator import attention, checkpointing, eager
from estimator.checkpointing import Regime
from estimator.decoder_layer import backward_mlp, unfused_mlp
from estimator.ledger import Instant, LiveSet, without
from estimator.resolve import Run
from estimator.sizes import Sizes
from estimator.statics import Statics

COMPILED = "allocator snapshots of the compiled layer, torch 2.11"


def forward(run: Run, statics: Statics, z: Sizes, regime: Regime) -> list[Instant]:
    """The compiled layer's forward where its graph is not kept: the MLP, with one hidden state fewer than eager."""
    if checkpointing.mode(run, z) is False:
        return eager.forward_keeping(run, z, regime, kept_for_backward(run, z), eager.old_gradients(run, statics))
    terms = [
        *eager.inputs_in_forward(run, z, regime),
        ("residual", z.u, "u", COMPILED),
        ("mlp_input", z.u, "u", COMPILED),
        ("mlp_gate_up_product", 3 * z.m, "3 * 2 T I", COMPILED),
        *eager.old_gradients(run, statics),
    ]
    return [Instant("forward", "mlp", terms)]


def kept_for_backward(run: Run, z: Sizes) -> LiveSet:
    """What one compiled layer holds when its backward begins, its input apart."""
    saved = without(attention.saved_for_backward(run, z), "attention_output_copy", "query_key_before_norm")
    terms = [
        ("attention_input", z.u, "u", COMPILED),
        ("query_before_rope", z.q, "q", COMPILED),
        ("query_after_rope", z.q, "q", COMPILED),
        *saved,
        ("residual", z.u, "u", COMPILED),
        ("mlp_gate_up", 2 * z.m, "2 * 2 T I", COMPILED),
    ]
    if run.architecture.qk_norm:
        terms += [
            ("key_before_norm", z.kv, "kv", COMPILED),
            ("attention_block_output", z.u, "u", COMPILED),
        ]
    if run.job.lora_dropout:
        terms.append(
            ("dropout_masks", 3 * z.u + z.m // 2 + z.m, "6 T H + T I + 2 T I", f"{COMPILED}, masks and a dropped copy")
        )
    return terms


def backward(run: Run, statics: Statics, z: Sizes, regime: Regime) -> list[Instant]:
    """The gate and up gradients of the MLP: four more MLP widths, since nothing is overwritten in place."""
    kept = kept_for_backward(run, z)
    layer = [*kept, *_mlp_gradients(run, statics, z)]
    return [
        Instant("backward", f"{name}, mlp", held + layer)
        for name, held in eager.around_worst_layers(run, statics, z, regime, kept)
    ]


loss_instants = eager.loss_instants


def _mlp_gradients(run: Run, statics: Statics, z: Sizes) -> LiveSet:
    if not run.fused.mlp:
        return [
            ("output_gradient", z.u, "u", "gradient of the layer's output"),
            *unfused_mlp(run, z, statics, 2),
        ]
    shared = without(backward_mlp(run, z, statics), "mlp_gradient", "dequantised_weight")
    return [*shared, ("mlp_gradients", 4 * z.m, "4 * 2 T I", COMPILED)]
