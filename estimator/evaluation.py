"""Evaluation: a forward without a graph, and its loss, at the evaluation batch size.

Measured (8B shape, 6 layers, H200): the peak is the training forward's without staging buffers, the same for 1 x
8,192 and 4 x 2,048 tokens. Unsloth's fused loss never holds the logits; they are all there where a metric asks for
them, and on the transformers path.
"""

from __future__ import annotations

from estimator import attention, decoder_layer, moe
from estimator.ledger import Instant, LiveSet
from estimator.loss import CE, FULL_LOGITS, LossPlan, plan_loss
from estimator.resolve import Run
from estimator.sizes import Sizes, sizes_of
from estimator.statics import Statics

EVALUATE = "transformers/trainer.py prediction_step, torch.no_grad"


def instants(run: Run, statics: Statics, z: Sizes, plan: LossPlan) -> list[Instant]:
    """The MLP and the loss of an evaluation step; nothing where no evaluation is planned.

    Args:
        plan: the training loss's, whose budget the process keeps.
    """
    batch = run.job.per_device_eval_batch_size
    if not batch:
        return []
    e = sizes_of(run.architecture, max_seq_length=z.max_seq_length, sequences=batch, length=z.length)
    plan = plan_loss(
        rows=batch * max(e.length - 1, 1),
        hidden_size=run.architecture.hidden_size,
        vocab_size=run.architecture.vocab_size,
        head_trains=False,
        free_bytes=2 * plan.budget_bytes,
        total_bytes=run.device.total_bytes,
        capability=run.device.compute_capability[0],
    )
    hidden = [("final_hidden_state", 2 * e.u, "2 u", EVALUATE), *_loss(run, e, plan)]
    return [
        Instant("evaluation", "mlp", [*streams(e), *forward_layer(run, statics, e)]),
        Instant("evaluation", "attention", [*streams(e), *forward_attention(run, e)]),
        Instant("evaluation", "loss", hidden),
    ]


def streams(e: Sizes) -> LiveSet:
    """The hidden states around a layer of a forward without a graph."""
    return [("embedding_output", e.u, "u", EVALUATE), ("layer_input", e.u, "u", EVALUATE)]


def forward_attention(run: Run, e: Sizes) -> LiveSet:
    """Attention of one layer's forward without a graph."""
    if run.own_forward:
        return decoder_layer.forward_attention(run, e)
    scores = attention.score_bytes(run, e, 6) if run.kernel == "eager" else 0
    return [
        ("attention_widths", 2 * e.u + 3 * e.q + 4 * e.kv, "2 u + 3 q + 4 kv", EVALUATE),
        ("attention_scores", scores, "6 B nh S^2", EVALUATE),
    ]


def forward_layer(run: Run, statics: Statics, e: Sizes) -> LiveSet:
    """The MLP of one layer's forward without a graph."""
    experts = moe.experts_of(run.architecture)
    if experts:
        return [("residual", e.u, "u", EVALUATE), ("mlp_input", e.u, "u", EVALUATE), *moe.forward(run, e, experts)]
    if run.own_forward:
        return decoder_layer.forward_mlp(run, e, statics)
    widths = 3 if run.path == "generated" else 6
    return [
        ("residual", 2 * e.u, "2 u", EVALUATE),
        ("mlp_widths", widths * e.m, "3 * 2 T I (fp32 on the transformers path)", EVALUATE),
        ("dequantised_weight", statics.scratch_bytes, "2 H I", EVALUATE),
    ]


def _loss(run: Run, e: Sizes, plan: LossPlan) -> LiveSet:
    vocabulary = e.tokens * run.architecture.vocab_size
    if run.path == "transformers":
        return [("logits", 10 * vocabulary, "2 T V + 4 T V + 4 T V", "transformers/loss/loss_utils.py ForCausalLMLoss")]
    if run.path == "generated" and run.architecture.model_type in FULL_LOGITS:
        return [("logits", 6 * vocabulary, "2 T V, and in fp32", "accelerate convert_outputs_to_fp32")]
    return [("loss_buffers", plan.buffer_bytes, f"{plan.kind}, {plan.rows} rows", CE)]
