"""LoRA parameters: r * (in + out) for every adapted linear, in fp32 by Unsloth's default.

Source: unsloth_zoo/training_utils.py ``prepare_model_for_training`` (float32_mixed_precision),
peft/tuners/lora/layer.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from estimator.allocator import block
from estimator.architecture import Architecture, LayerGroup
from estimator.errors import JobError
from estimator.optimizer import Tensors

EMBEDDINGS = ("embed_tokens", "lm_head")


class Trainable(NamedTuple):
    """Parameters that are trained.

    Attributes:
        lora_elements: elements of LoRA A and B of all layers. lora_bytes: their fp32 bytes, each tensor in its own
        block.
    """

    lora_elements: int = 0
    lora_bytes: int = 0


def target_shapes(group: LayerGroup, targets: frozenset[str]) -> Iterator[tuple[int, int, int]]:
    """(in_features, out_features, copies) of every linear of a layer that LoRA adapts."""
    for linear in group.linears:
        if linear.name in targets or linear.path in targets:
            yield linear.in_features, linear.out_features, linear.copies
    if group.experts:
        for name, fan_in, fan_out in expert_shapes(group):
            if targets & EXPERT_TARGETS[name]:
                yield fan_in, fan_out, group.experts.count


EXPERT_TARGETS = {
    "gate_up_proj": frozenset({"gate_up_proj", "gate_proj", "up_proj"}),
    "down_proj": frozenset({"down_proj"}),
}
"""Which ``target_modules`` reach the stacked experts: Unsloth adapts gate and up together."""


def expert_shapes(group: LayerGroup) -> tuple[tuple[str, int, int], ...]:
    """(name, in_features, out_features) of one expert's stacked projections."""
    if group.experts is None:
        return ()
    width = group.experts.intermediate_size
    hidden = group.experts.down // width
    return ("gate_up_proj", hidden, 2 * width), ("down_proj", width, hidden)


def lora_tensors(architecture: Architecture, r: int, targets: frozenset[str]) -> list[Tensors]:
    """LoRA A (r, in) and B (out, r) of every adapted linear, in fp32.

    Args:
        targets: module names (``q_proj``) or paths inside a layer.
    """
    tensors: list[Tensors] = []
    for group in architecture.layers:
        count = len(group.indices)
        for fan_in, fan_out, copies in target_shapes(group, targets):
            tensors.append(Tensors(r, fan_in, count * copies, 4))
            tensors.append(Tensors(fan_out, r, count * copies, 4))
    return tensors


def lora_parameters(tensors: list[Tensors]) -> Trainable:
    """LoRA elements and bytes over all layers."""
    elements = size = 0
    for rows, columns, count, itemsize, _ in tensors:
        elements += rows * columns * count
        size += block(rows * columns * itemsize) * count
    return Trainable(lora_elements=elements, lora_bytes=size)


def first_layer_lora_bytes(architecture: Architecture, r: int, targets: frozenset[str]) -> int:
    """fp32 bytes of the first layer's adapters."""
    first = next(group for group in architecture.layers if 0 in group.indices)
    return sum(4 * copies * r * (fan_in + fan_out) for fan_in, fan_out, copies in target_shapes(first, targets))


def known_targets(architecture: Architecture) -> tuple[str, ...]:
    """Names that ``target_modules`` may hold for this model, in the order of the layer."""
    names = [linear.name for group in architecture.layers for linear in group.linears]
    experts = [
        alias
        for group in architecture.layers
        for name, _, _ in expert_shapes(group)
        for alias in sorted(EXPERT_TARGETS[name])
    ]
    return tuple(dict.fromkeys(names + experts))


def check_targets(architecture: Architecture, targets: tuple[str, ...]) -> None:
    """Refuse a target that the model does not have. Raises JobError naming it."""
    known = known_targets(architecture)
    strange = [target for target in targets if target not in known and target not in EMBEDDINGS]
    if not strange:
        return
    paths = {linear.path for group in architecture.layers for linear in group.linears}
    for target in strange:
        if target not in paths:
            raise JobError(
                f'a {architecture.model_type} layer has no linear "{target}"',
                key="target_modules",
                allowed=", ".join(known + EMBEDDINGS),
            )


class Fused(NamedTuple):
    """Which of Unsloth's fused kernels run: each needs LoRA on all of its projections.

    Source: unsloth/models/llama.py ``patch_peft_model`` ("patched N layers with N QKV layers, N O layers and N MLP
    layers").
    """

    qkv: bool
    o: bool
    mlp: bool


def fused_kernels(targets: frozenset[str]) -> Fused:
    """The fused kernels that a set of target modules allows."""
    return Fused(
        qkv=targets >= {"q_proj", "k_proj", "v_proj"},
        o="o_proj" in targets,
        mlp=targets >= {"gate_proj", "up_proj", "down_proj"},
    )
