"""The transformers path: AutoModelForCausalLM, PEFT and a bare loop, bf16 autocast, SDPA, full logits.

On a quantised model ``prepare_model_for_kbit_training`` turns embeddings, head and norms into fp32, so the residual
stream is fp32, and bitsandbytes' Linear4bit gives back its input's dtype: MLP widths are fp32 too. Every set was
compared with allocator snapshots of Llama-3.1-8B shapes (transformers 5.17, torch 2.11, H200).
Sources: peft/utils/other.py ``prepare_model_for_kbit_training``; transformers/loss/loss_utils.py ``ForCausalLMLoss``;
transformers/models/llama/modeling_llama.py; bitsandbytes/nn/modules.py ``Linear4bit.forward``.
"""

from __future__ import annotations

from estimator import attention, checkpointing, eager, moe
from estimator.architecture import Experts
from estimator.checkpointing import Regime
from estimator.ledger import Instant, LiveSet, total
from estimator.loss import LossPlan
from estimator.resolve import Run
from estimator.sizes import Sizes
from estimator.statics import Statics

LLAMA = "transformers/models/llama/modeling_llama.py"
EAGER = f"{LLAMA} eager_attention_forward"
ROUTED = "transformers/integrations/moe.py"
LOSS = "transformers/loss/loss_utils.py ForCausalLMLoss"
LINEAR = "bitsandbytes/nn/modules.py Linear4bit.forward"
PEFT = "peft/tuners/lora/bnb.py Linear4bit.forward, inputs cast by autocast"


def stream_factor(run: Run) -> int:
    """2 where the residual stream is fp32 (a quantised base prepared for k-bit training), else 1."""
    return 2 if run.quantised else 1


def forward(run: Run, statics: Statics, z: Sizes, regime: Regime) -> list[Instant]:
    """Nothing in a layer's own forward reaches the loss, which follows it with everything kept."""
    return []


def loss_instants(run: Run, statics: Statics, z: Sizes, regime: Regime, plan: LossPlan) -> list[Instant]:
    """Logits in 16 bit, again in fp32, and their log-softmax; then its two gradients."""
    factor = stream_factor(run)
    vocabulary = z.tokens * run.architecture.vocab_size
    softcap = 2 * vocabulary if run.architecture.logit_softcap else 0
    held = [
        *held_at_loss(run, z),
        ("final_norm_input", factor * z.u, "4 T H (2 T H where 16 bit)", LLAMA),
        (
            "rotary_tables",
            2 * 4 * z.tokens // z.sequences * run.architecture.head_dim,
            "2 * 4 S hd",
            f"{LLAMA} LlamaRotaryEmbedding",
        ),
        ("logits_before_softcap", softcap, "2 T V where soft-capped", LLAMA),
        *_head_cast(run, statics),
        *eager.old_gradients(run, statics),
    ]
    return [
        Instant(
            "loss",
            "forward",
            [
                *held,
                ("final_hidden_state", factor * z.u, "4 T H (2 T H where 16 bit)", LLAMA),
                ("logits", 2 * vocabulary, "2 T V", LOSS),
                ("logits_fp32", 4 * vocabulary, "4 T V", LOSS),
                ("log_softmax", 4 * vocabulary, "4 T V", LOSS),
                *_autocast_copies(run, statics),
            ],
        ),
        Instant("backward", "loss", [*held, ("logits_gradients", 12 * vocabulary, "3 * 4 T V", LOSS)]),
    ]


def kept_for_backward(run: Run, z: Sizes) -> LiveSet:
    """What one layer keeps for its backward, its input apart."""
    factor = stream_factor(run)
    casts = 5 if factor == 2 else 2
    terms = [
        ("residual", factor * z.u, "4 T H (2 T H where 16 bit)", LLAMA),
        ("projection_inputs", casts * z.u, "5 u: one cast a projection (2 where 16 bit)", PEFT),
        ("query_key_value", z.q + 2 * z.kv, "q + 2 kv", LLAMA),
        ("attention_output", z.q, "q", LLAMA),
        ("mlp_widths", 3 * factor * z.m, "3 * 4 T I (2 T I where 16 bit)", LINEAR),
        ("down_input", z.m, "2 T I", PEFT),
    ]
    if factor == 1:
        terms.append(("norm_inputs_fp32", 2 * 2 * z.u, "2 * 4 T H", f"{LLAMA} LlamaRMSNorm"))
    if run.kernel == "eager":
        terms.append(("attention_scores", attention.score_bytes(run, z, 6), "6 B nh S^2", EAGER))
    experts = moe.experts_of(run.architecture)
    if experts:
        terms.append(("routed_rows", _routed_bytes(run, z, experts), "2 R (2 H + 3 Ie)", ROUTED))
    if run.architecture.qk_norm:
        terms.append(("query_key_before_norm", 2 * factor * (z.q + z.kv), "fp32 queries and keys", LLAMA))
    return terms


def _routed_bytes(run: Run, z: Sizes, experts: Experts) -> int:
    """Two hidden states and three expert widths of every routed row."""
    return 2 * z.tokens * experts.per_token * (2 * run.architecture.hidden_size + 3 * experts.intermediate_size)


def _kernel_gradients(run: Run, z: Sizes) -> LiveSet:
    """What eager attention and routed experts add to a layer's backward."""
    rows: LiveSet = []
    if run.kernel == "eager":
        rows.append(("score_gradients", attention.score_bytes(run, z, 8), "8 B nh S^2", EAGER))
    experts = moe.experts_of(run.architecture)
    if experts:
        rows.append(
            (
                "routed_row_gradients",
                _routed_bytes(run, z, experts),
                "2 R (2 H + 3 Ie)",
                ROUTED,
            )
        )
    return rows


def backward(run: Run, statics: Statics, z: Sizes, regime: Regime) -> list[Instant]:
    """The MLP's backward of the last and the first layer; the loss's own backward is usually wider."""
    factor = stream_factor(run)
    instants = []
    kept = kept_for_backward(run, z)
    for name, layers_done in eager.ends(run):
        others = layers_done - 1 if checkpointing.mode(run, z) is False else 0
        terms = [
            ("layer_inputs", layers_done * factor * z.u, "L * 4 T H (2 T H where 16 bit)", checkpointing.PLAIN),
            ("layers_kept", others * total(kept), "L * (what one layer keeps)", "estimator/stock.py kept_for_backward"),
            *kept,
            ("output_gradient", 2 * factor * z.u, "2 * 4 T H", "gradients of the residual stream"),
            ("mlp_gradients", (3 * factor - 1) * z.m, "3 * 4 T I - 2 T I", LINEAR),
            *_kernel_gradients(run, z),
            *eager.gradients_at(run, statics, layers_done),
        ]
        instants.append(Instant("backward", f"{name}, mlp", terms))
    return instants


def held_at_loss(run: Run, z: Sizes) -> LiveSet:
    """Layer inputs, and without checkpointing everything that the layers keep."""
    depth = run.architecture.num_hidden_layers
    inputs = ("layer_inputs", depth * stream_factor(run) * z.u, "L * 4 T H (2 T H where 16 bit)", checkpointing.PLAIN)
    if checkpointing.mode(run, z) is not False:
        return [inputs]
    return [inputs, ("layers_kept", depth * total(kept_for_backward(run, z)), "L * (what one layer keeps)", LLAMA)]


def _head_cast(run: Run, statics: Statics) -> LiveSet:
    """Autocast's 16-bit copy of an fp32 head, kept for the backward."""
    if stream_factor(run) == 1:
        return []
    return [("lm_head_cast", statics.head_elements * 2, "2 V H", "torch.autocast")]


def _autocast_copies(run: Run, statics: Statics) -> LiveSet:
    """Autocast's cached 16-bit copies of the fp32 adapters, until the forward's autocast ends."""
    return [
        ("autocast_adapters", 2 * statics.trainable.lora_elements, "2 r sum(in + out)", "torch.autocast weight cache")
    ]
