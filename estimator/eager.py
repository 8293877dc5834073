"""The eager path: every instant of a training step that can be its peak, with Unsloth's fused kernels.

Source: unsloth/models/llama.py ``LlamaModel_fast_forward``, ``CausalLM_fast_forward``; see `estimator.decoder_layer`.
"""

from __future__ import annotations

from estimator import checkpointing, decoder_layer, loss
from estimator.checkpointing import Regime
from estimator.ledger import Instant, LiveSet, Row, total
from estimator.loss import LossPlan
from estimator.resolve import Run
from estimator.sizes import Sizes
from estimator.statics import Statics

MODEL = "unsloth/models/llama.py LlamaModel_fast_forward"


def scratch(run: Run, statics: Statics) -> LiveSet:
    """The persistent dequantisation scratch of the fused kernels; LoRA dropout does without it."""
    if run.path != "eager" or not run.quantised or run.job.lora_dropout:
        return []
    return [
        ("dequantisation_scratch", statics.fused_scratch_bytes, "2 max(in * out)", "unsloth/kernels/utils.py _scratch")
    ]


def forward(run: Run, statics: Statics, z: Sizes, regime: Regime) -> list[Instant]:
    """The two wide moments of the last layer's forward, when most layer inputs exist."""
    inputs = inputs_in_forward(run, z, regime)
    old = old_gradients(run, statics)
    if checkpointing.mode(run, z) is False:
        return forward_keeping(run, z, regime, decoder_layer.kept_for_backward(run, z), old)
    return [
        Instant("forward", "mlp", [*inputs, *decoder_layer.forward_mlp(run, z, statics), *old]),
        Instant("forward", "attention", [*inputs, *decoder_layer.forward_attention(run, z), *old]),
    ]


def inputs_in_forward(run: Run, z: Sizes, regime: Regime, source: str = MODEL) -> LiveSet:
    """Layer inputs while the last layer's forward runs: its own is not yet on its way to the host."""
    inputs = checkpointing.layer_inputs(run, z, regime, layers_done=run.architecture.num_hidden_layers)
    if regime.offloads and run.architecture.num_hidden_layers > 1:
        return [inputs[0], ("layer_input", z.u, "u", source)]
    return inputs


def forward_keeping(run: Run, z: Sizes, regime: Regime, kept: LiveSet, beside: LiveSet) -> list[Instant]:
    """The last layer's down projection where every layer keeps its tensors; ``beside`` is what else is alive then."""
    depth = run.architecture.num_hidden_layers
    inputs = checkpointing.layer_inputs(run, z, regime, layers_done=depth)
    last = [("mlp_product", z.m, "2 T I", "the down projection's input"), ("mlp_output", z.u, "u", MODEL)]
    return [Instant("forward", "mlp", [*inputs, layers_kept(kept, depth), *last, *beside])]


def loss_instants(run: Run, statics: Statics, z: Sizes, regime: Regime, plan: LossPlan) -> list[Instant]:
    """The fused head and cross entropy, forward and backward, with everything the graph holds."""
    held = [*held_at_loss(run, z, regime), *old_gradients(run, statics)]
    held.append(("final_norm_input", z.u, "u", "unsloth/kernels/rms_layernorm.py, saved X"))
    head = head_gradient(statics)
    gradient = ("hidden_gradient", z.u, "u", f"{loss.CE}, grad_h")
    chunk = ("loss_buffers", plan.buffer_bytes, f"{plan.kind}, {plan.rows} rows", f"{loss.CE}")
    hidden = ("final_hidden_state", z.u, "u", MODEL)
    scaled = ("scaled_hidden_gradient", z.u, "u", "unsloth_zoo/fused_losses/fused_linear.py _scale_rows_impl")
    return [
        Instant("loss", "forward", [*held, hidden, gradient, chunk, *head]),
        Instant("backward", "loss", [*held, gradient, scaled, *head, *_scaled(head)]),
    ]


def backward(run: Run, statics: Statics, z: Sizes, regime: Regime) -> list[Instant]:
    """The widest moments of the last and of the first layer's backward: one has all inputs, the other all gradients."""
    kept = decoder_layer.kept_for_backward(run, z)
    mlp = [*kept, *decoder_layer.backward_mlp(run, z, statics)]
    attention = decoder_layer.backward_attention(run, z)
    instants = []
    for name, held in around_worst_layers(run, statics, z, regime, kept):
        instants.append(Instant("backward", f"{name}, mlp", held + mlp))
        instants.append(Instant("backward", f"{name}, attention", held + attention))
    return instants


def around_worst_layers(
    run: Run, statics: Statics, z: Sizes, regime: Regime, kept: LiveSet
) -> list[tuple[str, LiveSet]]:
    """What surrounds the backward of the two layers that can be worst, by their names.

    Args:
        kept: what a layer keeps for its backward, for those below where nothing is checkpointed.
    """
    return [
        (name, [*held_at_backward(run, z, regime, done, kept), *gradients_at(run, statics, done)])
        for name, done in ends(run)
    ]


def ends(run: Run) -> tuple[tuple[str, int], tuple[str, int]]:
    """The two layers that can be worst: the last has all inputs, the first all gradients; (name, number from 1)."""
    return ("last layer", run.architecture.num_hidden_layers), ("first layer", 1)


def optimizer(run: Run, statics: Statics, z: Sizes, regime: Regime) -> list[Instant]:
    """The step: all gradients, and the optimizer's temporaries."""
    return [Instant("optimizer", "step", [all_gradients(run, statics), optimizer_temporaries(statics)])]


def all_gradients(run: Run, statics: Statics) -> Row:
    """Gradients of everything that trains."""
    return ("gradients", statics.gradient_bytes, *_gradient_origin(run))


def optimizer_temporaries(statics: Statics) -> Row:
    """What one optimizer step allocates and frees."""
    return ("optimizer_temporaries", statics.optimizer_step_bytes, "foreach lists", "estimator/optimizer.py")


def old_gradients(run: Run, statics: Statics) -> LiveSet:
    """With gradient accumulation, the gradients of earlier micro-batches."""
    return [all_gradients(run, statics)] if run.job.gradient_accumulation_steps > 1 else []


def head_gradient(statics: Statics) -> LiveSet:
    """The head's gradient, made by the loss before any layer's."""
    if not statics.head_gradient_bytes:
        return []
    return [("head_gradient", statics.head_gradient_bytes, "2 V H", f"{loss.CE}, grad_w")]


def _scaled(head: LiveSet) -> LiveSet:
    """The loss's backward writes the head's gradient again, scaled."""
    return [("scaled_" + name, size, formula, source) for name, size, formula, source in head]


def gradients_at(run: Run, statics: Statics, layers_done: int) -> LiveSet:
    """Gradients that exist while the backward of layer number ``layers_done`` (from 1) runs."""
    if run.job.gradient_accumulation_steps > 1:
        return [all_gradients(run, statics)]
    depth = run.architecture.num_hidden_layers
    if layers_done == depth and depth > 1:
        return head_gradient(statics)
    size = statics.gradient_bytes - statics.first_layer_gradient_bytes
    formula, source = _gradient_origin(run)
    return [("gradients", max(size, 0), f"{formula}, of the layers above", source)]


def _gradient_origin(run: Run) -> tuple[str, str]:
    """Formula and source of the gradients."""
    if run.job.full_finetuning:
        return "as the parameters", ".grad of every parameter"
    return "4 r sum(in + out)", "fp32 .grad of LoRA A and B, and of modules_to_save"


def held_at_loss(run: Run, z: Sizes, regime: Regime) -> LiveSet:
    """Layer inputs, or without checkpointing everything the layers keep, while the loss runs."""
    depth = run.architecture.num_hidden_layers
    inputs = checkpointing.layer_inputs(run, z, regime, layers_done=depth)
    if checkpointing.mode(run, z) is False:
        return [*inputs, layers_kept(decoder_layer.kept_for_backward(run, z), depth)]
    return inputs


def held_at_backward(run: Run, z: Sizes, regime: Regime, layers_done: int, kept: LiveSet) -> LiveSet:
    """What surrounds the layer whose backward runs: inputs, and its recomputed output or all that its predecessors
    keep.
    """
    inputs = checkpointing.layer_inputs(run, z, regime, layers_done=layers_done)
    if checkpointing.mode(run, z) is False:
        return [*inputs, layers_kept(kept, layers_done - 1)]
    return [*inputs, ("recomputed_output", z.u, "u", f"{checkpointing.SMART}.backward, outputs")]


def layers_kept(kept: LiveSet, layers: int) -> Row:
    """The saved tensors of ``layers`` layers without checkpointing."""
    return ("layers_kept", layers * total(kept), "L * (what one layer keeps)", "kept_for_backward of the path")
