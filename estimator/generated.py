"""The generated path: what Unsloth's FastModel serves through modules that unsloth_zoo/compiler.py writes.

Read from allocator snapshots of Phi-4, Granite-3.1-8B, Gemma-3-1B, Qwen3-30B-A3B and gpt-oss-20b shapes and of a
full fine-tuning of Qwen2.5-0.5B (torch 2.11, H200). Fewer shapes have been seen than on the other paths, so the
bound is wider.
"""

from __future__ import annotations

from estimator import attention, checkpointing, eager, moe
from estimator.checkpointing import Regime
from estimator.ledger import Instant, LiveSet, Row
from estimator.loss import FULL_LOGITS, LossPlan
from estimator.resolve import Run
from estimator.sizes import Sizes
from estimator.statics import Statics

TRAINER_LOGIT_COPIES = 3
"""Copies of the logits alive in TRL's SFTTrainer, which reads them for its metrics."""

LOOP_LOGIT_COPIES = {"gemma3_text": 1}
SCALED_LOGIT_COPIES = 2
"""Copies in a bare loop: one, and another where the module scales its logits (granite, cohere). Measured: gemma-3-1b
and granite-3.1-8b at 2,048 and 8,192 tokens, H200."""

SCORES_IN_FORWARD, SCORES_KEPT, SCORES_IN_BACKWARD = 3, 2, 5
"""Copies of the 16-bit attention scores where attention is eager: in its forward, kept for its backward, and in its
backward. Measured: gpt-oss-20b and a 4-layer gpt-oss-120b without Flex Attention at 2,048 and 4,096 tokens, H100."""

EAGER_ATTENTION = "unsloth_zoo/temporary_patches/gpt_oss.py eager_attention_forward"
CROSS_ENTROPY = "unsloth/kernels/cross_entropy_loss.py Fast_CrossEntropyLoss"
MODULES = "unsloth_compiled_cache, allocator snapshots on torch 2.11"


def forward(run: Run, statics: Statics, z: Sizes, regime: Regime) -> list[Instant]:
    """The MLP, or the experts, of a forward whose graph is not kept."""
    held = [
        *eager.inputs_in_forward(run, z, regime, MODULES),
        ("residual", z.u, "u", MODULES),
        ("mlp_input", z.u, "u", MODULES),
        *eager.old_gradients(run, statics),
    ]
    experts = moe.experts_of(run.architecture)
    wide = moe.forward(run, z, experts) if experts else [("mlp_gate_up_product", 3 * z.m, "3 * 2 T I", MODULES)]
    if checkpointing.mode(run, z) is False:
        kept = [*kept_for_backward(run, z), *_mlp_kept(run, z)]
        beside = [*wide, _dequantised(run, statics), *eager.old_gradients(run, statics)]
        under = _kept_below(run, statics, z, regime, kept)
        return [*eager.forward_keeping(run, z, regime, kept, beside), *_attention_forward(run, z, under)]
    return [Instant("forward", "mlp", [*held, *wide, _dequantised(run, statics)]), *_attention_forward(run, z, held)]


def _attention_forward(run: Run, z: Sizes, held: LiveSet) -> list[Instant]:
    """The last layer's attention where it makes its scores: wider than the MLP in a long context."""
    if run.kernel != "eager":
        return []
    attending = ("query_key_value", z.q + 2 * z.kv, "q + 2 kv", MODULES)
    return [Instant("forward", "attention", [*held, attending, _more_scores(run, z, SCORES_IN_FORWARD)])]


def _kept_below(run: Run, statics: Statics, z: Sizes, regime: Regime, kept: LiveSet) -> LiveSet:
    """Without checkpointing: what all layers below the last keep, and the inputs, while its attention runs."""
    depth = run.architecture.num_hidden_layers
    inputs = checkpointing.layer_inputs(run, z, regime, layers_done=depth)
    return [*inputs, eager.layers_kept(kept, depth - 1), *eager.old_gradients(run, statics)]


def kept_for_backward(run: Run, z: Sizes) -> LiveSet:
    """What one layer's attention holds while its MLP runs backward, and the residual stream around it."""
    terms = [
        ("attention_input", z.u, "u", MODULES),
        ("query_key_value", z.q + 2 * z.kv, "q + 2 kv", MODULES),
        ("attention_output", z.q, "q", MODULES),
        ("key_after_rope", z.kv, "kv", MODULES),
        ("residual", z.u, "u", MODULES),
    ]
    if run.architecture.qk_norm or run.architecture.attention_sinks:
        terms.append(("query_after_rope", z.q, "q", MODULES))
    if run.kernel == "eager":
        terms.append(
            (
                "attention_scores",
                attention.score_bytes(run, z, 2 * SCORES_KEPT),
                "2 * 2 B nh S^2",
                EAGER_ATTENTION,
            )
        )
    return terms


def backward(run: Run, statics: Statics, z: Sizes, regime: Regime) -> list[Instant]:
    """The MLP's, or the experts', backward of the last and of the first layer."""
    kept = [*kept_for_backward(run, z), *_mlp_kept(run, z)]
    layer = [("output_gradient", z.u, "u", "gradient of the layer's output"), *kept_for_backward(run, z)]
    around = eager.around_worst_layers(run, statics, z, regime, kept)
    instants = [
        Instant("backward", f"{name}, mlp", [*held, *layer, *wide])
        for name, held in around
        for wide in _mlp_backward(run, z)
    ]
    instants += _embedding_backward(run, statics, z)
    if run.kernel == "eager":
        gradient = ("output_gradient", z.u, "u", "gradient of the attention's output")
        attending = [gradient, *kept_for_backward(run, z), _more_scores(run, z, SCORES_IN_BACKWARD - SCORES_KEPT)]
        instants += [Instant("backward", f"{name}, attention", held + attending) for name, held in around]
    return instants


def _more_scores(run: Run, z: Sizes, copies: int) -> Row:
    return (
        "attention_scores_transient",
        attention.score_bytes(run, z, 2 * copies),
        f"{copies} * 2 B nh S^2",
        EAGER_ATTENTION,
    )


def _mlp_kept(run: Run, z: Sizes) -> LiveSet:
    return [("mlp_gate_up", 2 * z.m, "2 * 2 T I", MODULES)]


def _mlp_backward(run: Run, z: Sizes) -> list[LiveSet]:
    """The moments of an MLP's, or of the experts', backward that can be its widest."""
    experts = moe.experts_of(run.architecture)
    if experts:
        return moe.backward(run, z, experts)
    wide = 4 if run.job.full_finetuning else 6
    return [[("mlp_gate_up_gradients", wide * z.m, "6 * 2 T I (4 where the weights train)", MODULES)]]


def _embedding_backward(run: Run, statics: Statics, z: Sizes) -> list[Instant]:
    """The end of a full backward: where the head is tied, the embedding's gradient is added to the head's.

    Measured: full fine-tuning of Qwen2.5-0.5B and Llama-3.2-1B at 2,048 tokens, H200.
    """
    if not (run.job.full_finetuning and run.architecture.tie_word_embeddings):
        return []
    rows = [
        eager.all_gradients(run, statics),
        ("embedding_gradient", statics.head_gradient_bytes, "2 V H", "aten embedding_dense_backward"),
        ("output_gradient", z.u, "u", "gradient of the embedding's output"),
    ]
    return [Instant("backward", "embedding", rows)]


def loss_instants(run: Run, statics: Statics, z: Sizes, regime: Regime, plan: LossPlan) -> list[Instant]:
    """The fused loss, or the full logits of the families whose generated module computes them."""
    if run.architecture.model_type not in FULL_LOGITS:
        return eager.loss_instants(run, statics, z, regime, plan)
    held = [*eager.held_at_loss(run, z, regime), *eager.old_gradients(run, statics)]
    held.append(("final_norm_input", z.u, "u", MODULES))
    logits = 2 * z.tokens * run.architecture.vocab_size
    in_a_loop = LOOP_LOGIT_COPIES.get(run.architecture.model_type, SCALED_LOGIT_COPIES)
    copies = TRAINER_LOGIT_COPIES if run.trainer == "sft" else in_a_loop
    hidden = ("final_hidden_state", z.u, "u", MODULES)
    return [
        Instant("loss", "forward", [*held, hidden, ("logits", copies * logits, f"{copies} * 2 T V", CROSS_ENTROPY)]),
        Instant("backward", "loss", [*held, ("logits", 2 * logits, "2 * 2 T V", CROSS_ENTROPY)]),
    ]


def _dequantised(run: Run, statics: Statics) -> Row:
    size = statics.scratch_bytes if run.quantised else 0
    return ("dequantised_weight", size, "2 H I", "bitsandbytes Linear4bit, one weight at a time")
