"""One decoder layer on the eager path: Unsloth's fused kernels, forward and backward, instant by instant.

Sources: unsloth/models/llama.py ``LlamaDecoderLayer_fast_forward``, ``LlamaAttention_fast_forward``;
unsloth/kernels/fast_lora.py ``LoRA_MLP``, ``LoRA_QKV``, ``LoRA_W``; unsloth/kernels/utils.py ``matmul_lora``,
``fast_dequantize``; unsloth/kernels/rms_layernorm.py; unsloth_zoo/tiled_mlp.py ``TiledMLP``.
Every set was compared, tensor by tensor, with an allocator snapshot taken at the peak on an H200.
"""

from __future__ import annotations

from estimator import attention
from estimator.allocator import block
from estimator.ledger import LiveSet, Row, total, without
from estimator.resolve import Run
from estimator.sizes import Sizes
from estimator.statics import Statics

QUERY_KEY_VALUE = frozenset({"q_proj", "k_proj", "v_proj"})
LLAMA = "unsloth/models/llama.py LlamaDecoderLayer_fast_forward"
MLP = "unsloth/kernels/fast_lora.py LoRA_MLP"
QKV = "unsloth/kernels/fast_lora.py LoRA_QKV"
TILED = "unsloth_zoo/tiled_mlp.py TiledMLP"
RESIDUAL = f"{LLAMA}, saved by the second norm"
QKV_INPUT = f"{QKV}.forward, saved X"
MLP_FORWARD = f"{MLP}.forward"
MLP_INPUT = f"{MLP}.forward, saved X"
MLP_SAVED = f"{MLP}.forward, saved e and g"
MLP_RANK = f"{MLP}.backward, up_dB and gate_dB"
MLP_FACTORS = f"{MLP}.backward, 16-bit factors and their gradients"
MLP_DW = f"{MLP}.backward, DW"
GEMMA2 = "unsloth/models/gemma2.py Gemma2DecoderLayer_fast_forward"
UNFUSED = "autograd of an MLP that LoRA does not adapt whole"
POST_NORMS = frozenset({"gemma2"})


def forward_mlp(run: Run, z: Sizes, statics: Statics) -> LiveSet:
    """The down projection of a forward pass whose graph is not kept (checkpointed, or evaluation)."""
    terms = [
        ("residual", z.u, "u", LLAMA),
        ("mlp_input", z.u, "u", LLAMA),
        ("mlp_output", z.u, "u", MLP_FORWARD),
        ("lora_activations", _rank_activations(run, z, 1), "2 T r", "unsloth/kernels/utils.py matmul_lora"),
    ]
    if run.job.lora_dropout:
        terms += [
            ("dropped_mlp_input", z.m, "2 T I", f"{MLP}.forward, hd"),
            ("dropout_masks", z.m // 2 + z.u, "T I + 2 T H", f"{MLP}.forward, masks"),
            dequantised(run, statics),
        ]
    return terms + _mlp_width(run, z, backward=False)


def forward_attention(run: Run, z: Sizes) -> LiveSet:
    """o_proj of a forward pass whose graph is not kept."""
    return [
        ("attention_input", z.u, "u", LLAMA),
        *attention.forward_working_set(run, z),
        ("attention_block_output", z.u, "u", "unsloth/models/llama.py LlamaAttention_fast_forward"),
        ("lora_activations", _rank_activations(run, z, 1), "2 T r", "unsloth/kernels/utils.py matmul_lora"),
    ]


def kept_for_backward(run: Run, z: Sizes) -> LiveSet:
    """What one layer holds between its (re)computed forward and the backward of its MLP, its input apart."""
    return [
        ("attention_input", _attention_input(run, z), "u", QKV_INPUT),
        *attention.saved_for_backward(run, z),
        ("residual", z.u, "u", RESIDUAL),
        ("mlp_input", z.u if run.fused.mlp else 0, "u", MLP_INPUT),
        ("norm_statistics", 2 * block(4 * z.tokens), "2 * 4 T", "unsloth/kernels/rms_layernorm.py, saved r"),
        *_post_norms(run, z),
        *_mlp_kept(run, z),
    ]


def _post_norms(run: Run, z: Sizes) -> LiveSet:
    """Where attention and MLP are normed once more before they are added: the first norm's input, and the gradient
    that the second makes beside the residual stream's."""
    if run.architecture.model_type not in POST_NORMS:
        return []
    return [("attention_block_output", z.u, "u", GEMMA2), ("mlp_output_gradient", z.u, "u", GEMMA2)]


def _mlp_kept(run: Run, z: Sizes) -> LiveSet:
    terms = []
    if not run.job.unsloth_tiled_mlp:
        widths = 2 if run.fused.mlp else 3
        terms.append(("mlp_gate_up", widths * z.m, "2 * 2 T I (3 where not fused)", MLP_SAVED))
    if run.job.lora_dropout:
        terms.append(("dropout_masks", 3 * z.u + z.m // 2, "6 T H + T I", f"{MLP}, {QKV}, LoRA_W: boolean masks"))
    return terms


def backward_mlp(run: Run, z: Sizes, statics: Statics) -> LiveSet:
    """The up projection's gradient in ``LoRA_MLP.backward``: the widest moment of a layer."""
    gradient = ("output_gradient", z.u, "u", "gradient of the layer's output")
    if not run.fused.mlp and run.job.unsloth_tiled_mlp:
        tile = _mlp_width(run, z, backward=True)
        return [gradient, ("mlp_input_gradient", z.u, "u", f"{TILED}.backward, x_gradients"), *tile, *tile]
    if not run.fused.mlp:
        return [gradient, *unfused_mlp(run, z, statics, 3)]
    r, hidden, width = run.job.r, run.architecture.hidden_size, run.architecture.intermediate_size
    factors = 3 * 2 * r * (hidden + width)
    terms = [
        gradient,
        ("lora_activations", _rank_activations(run, z, 2), "2 * 2 T r", MLP_RANK),
        ("lora_factors", 2 * factors, "2 * 3 * 2 r (H + I)", MLP_FACTORS),
    ]
    if run.job.unsloth_tiled_mlp:
        tile = [("mlp_input_gradient", z.u, "u", f"{TILED}.backward, x_gradients"), *_mlp_width(run, z, backward=True)]
        return [*terms, dequantised(run, statics), *tile]
    if run.job.lora_dropout:
        return [*terms, *_replayed(run, z, statics)]
    return [*terms, dequantised(run, statics), ("mlp_gradient", z.m, "2 T I", MLP_DW)]


def unfused_mlp(run: Run, z: Sizes, statics: Statics, gradients: int) -> LiveSet:
    """Without the fused kernels, the wider of two moments: so many MLP-wide gradients, or one beside a weight that was
    dequantised to be multiplied.

    Measured: Llama-3.1-8B with LoRA on q and v, and on the attention alone, at 2,048 and 8,192 tokens, H200.
    """
    weight = dequantised(run, statics)
    multiplied = [weight, ("mlp_gradient", z.m, "2 T I", UNFUSED), ("mlp_input_gradient", z.u, "u", UNFUSED)]
    wide = [("mlp_gradient", gradients * z.m, f"{gradients} * 2 T I", UNFUSED)]
    return max(wide, multiplied, key=total)


def backward_attention(run: Run, z: Sizes) -> LiveSet:
    """The attention kernel's backward, with what the block had saved; the MLP's tensors are gone."""
    gone = ("attention_output_copy", "attention_output" if run.kernel == "softcap_compiled" else "")
    saved = without(attention.saved_for_backward(run, z), *gone)
    return [
        ("attention_input", _attention_input(run, z), "u", QKV_INPUT),
        *saved,
        ("output_gradient", z.u, "u", "gradient of the layer's output, an argument of the checkpoint"),
        ("residual_gradient", z.u, "u", "gradient of the residual stream between attention and MLP"),
        ("norm_statistics", block(4 * z.tokens), "4 T", "unsloth/kernels/rms_layernorm.py, saved r"),
        *attention.backward_working_set(run, z),
    ]


def _replayed(run: Run, z: Sizes, statics: Statics) -> LiveSet:
    """With dropout, the wider of two moments: the replay of the dropped input, or a weight in 16 bit after it."""
    weight = dequantised(run, statics)
    if total([weight]) > z.m:
        return [weight, ("mlp_gradient", 2 * z.m, "2 * 2 T I", f"{MLP}.backward, DW and the dropped input")]
    return [("mlp_gradient", 3 * z.m, "3 * 2 T I", f"{MLP}.backward, DW and _dropout_replay")]


def _attention_input(run: Run, z: Sizes) -> int:
    """The A of LoRA on any of q, k and v saves the layer's normed input, fused or not."""
    return 0 if run.targets.isdisjoint(QUERY_KEY_VALUE) else z.u


def dequantised(run: Run, statics: Statics) -> Row:
    """The one weight that a backward holds in 16 bit beside the persistent scratch."""
    size = statics.scratch_bytes if run.quantised else 0
    return ("dequantised_weight", size, "2 H I", "unsloth/kernels/utils.py fast_dequantize")


def _mlp_width(run: Run, z: Sizes, *, backward: bool) -> LiveSet:
    """The three MLP-wide tensors of a forward, or of one tile."""
    architecture = run.architecture
    where = f"{MLP}.{'backward' if backward else 'forward'}"
    if not run.job.unsloth_tiled_mlp:
        return [("mlp_gate_up_product", 3 * z.m, "3 * 2 T I", where)]
    rows = min(z.tokens, architecture.hidden_size)
    return [
        ("mlp_tile", 3 * block(2 * rows * architecture.intermediate_size), "3 * 2 min(T, H) I", f"{TILED}, arctic"),
        ("mlp_tile_output", block(2 * rows * architecture.hidden_size), "2 min(T, H) H", f"{TILED}, arctic"),
    ]


def _rank_activations(run: Run, z: Sizes, count: int) -> int:
    return count * block(2 * z.tokens * run.job.r)
