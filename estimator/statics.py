"""What a run keeps on the GPU whatever its sequence length: weights, adapters, gradients, optimizer state,
workspaces.
"""

from __future__ import annotations

from typing import NamedTuple

from estimator.adapters import Trainable, first_layer_lora_bytes, lora_parameters, lora_tensors
from estimator.allocator import MIB, block
from estimator.architecture import Architecture
from estimator.optimizer import OPTIMIZER_KINDS, Tensors
from estimator.resolve import BF16_CAPABILITY, Run
from estimator.weights import Storage, WeightBytes, weight_bytes

HOPPER_WORKSPACE_BYTES = 32 * MIB
DEFAULT_WORKSPACE_BYTES = 8_519_680
"""cuBLAS workspace per handle: aten/src/ATen/cuda/CublasHandlePool.cpp ``parseChosenWorkspaceSize`` (4096 KiB * 8 on
Hopper, ``:4096:2:16:8`` elsewhere). Measured: 33,554,432 B after loading on an H100, before any training step."""


class Statics(NamedTuple):
    """Bytes that do not depend on the number of tokens.

    Attributes:
        trained_bytes: adapters and full copies that train (the base weights themselves in full fine-tuning are in
        weights).
        gradient_bytes: gradients of everything that trains. first_layer_gradient_bytes: the part that the first
            layer's own backward makes, so it is not there while that backward runs.
        scratch_bytes: the largest projection in 16 bit. fused_scratch_bytes: the largest that a fused kernel
            multiplies, Unsloth's persistent dequantisation scratch.
        head_elements: V * H. head_gradient_bytes: the head's gradient, where it trains.
        upcast_bytes: what turning the 16-bit modules into fp32 adds (plain PEFT on a quantised model).
        optimizer_device_bytes: state in managed memory (paged optimizers): on the device, unknown to torch.
    """

    weights: WeightBytes
    trainable: Trainable
    trained_bytes: int
    gradient_bytes: int
    first_layer_gradient_bytes: int
    optimizer_bytes: int
    optimizer_device_bytes: int
    optimizer_step_bytes: int
    scratch_bytes: int
    workspace_bytes: int
    head_elements: int
    head_gradient_bytes: int = 0
    upcast_bytes: int = 0
    fused_scratch_bytes: int = 0


REMEMBERED = 256
_remembered: dict[tuple[object, ...], tuple[Architecture, Statics]] = {}


def statics_of(run: Run) -> Statics:
    """All of it, remembered for the architectures at hand: a search over lengths and a service ask for the same again.

    The key names an architecture by identity, and the memory keeps it alive, so that an identity is never another's.
    """
    job = run.job
    key = (
        id(run.architecture),
        run.path,
        run.storage,
        run.targets,
        job.r,
        job.optim,
        job.modules_to_save,
        job.full_finetuning,
        run.trainer,
        run.device.compute_capability,
    )
    found = _remembered.get(key)
    if found is None:
        if len(_remembered) >= REMEMBERED:
            _remembered.clear()
        found = _remembered[key] = run.architecture, compute_statics(run)
    return found[1]


def compute_statics(run: Run) -> Statics:
    """Compute all of it; cost grows with the kinds of layer, never with depth."""
    architecture, job = run.architecture, run.job
    weights = weight_bytes(architecture, run.storage, experts_storage(run))
    if job.full_finetuning:
        return _full_finetuning(run, weights)
    tensors = lora_tensors(architecture, job.r, run.targets)
    trainable = lora_parameters(tensors)
    itemsize = saved_itemsize(run)
    saved_bytes = len(job.modules_to_save) * block(itemsize * architecture.vocab_size * architecture.hidden_size)
    for name in job.modules_to_save:
        through_trainer = name == "embed_tokens" and run.trainer == "sft"
        tensors.append(Tensors(architecture.vocab_size, architecture.hidden_size, 1, itemsize, through_trainer))
    state, managed, step = _optimizer_bytes(run, tensors, trainable.lora_bytes + saved_bytes)
    return Statics(
        weights=weights,
        trainable=trainable,
        trained_bytes=trainable.lora_bytes + saved_bytes,
        gradient_bytes=trainable.lora_bytes + saved_bytes,
        first_layer_gradient_bytes=first_layer_lora_bytes(architecture, job.r, run.targets),
        optimizer_bytes=state,
        optimizer_device_bytes=managed,
        optimizer_step_bytes=step,
        scratch_bytes=2 * largest_projection(architecture),
        fused_scratch_bytes=2 * largest_fused_projection(run),
        workspace_bytes=workspace_bytes(run),
        head_elements=architecture.vocab_size * architecture.hidden_size,
        head_gradient_bytes=saved_bytes // len(job.modules_to_save) if "lm_head" in job.modules_to_save else 0,
        upcast_bytes=upcast_bytes(run, weights),
    )


def saved_itemsize(run: Run) -> int:
    """Bytes an element of a trained copy takes: fp32 where the module was turned into fp32 before, or has no bf16.

    Source: peft/utils/other.py ``prepare_model_for_kbit_training``; unsloth/models/llama.py
    ``_offload_frozen_module_for_training``.
    """
    upcast = run.path == "transformers" and run.quantised
    return 4 if upcast or run.device.compute_capability[0] < BF16_CAPABILITY else 2


def experts_storage(run: Run) -> Storage:
    """Stacked experts stay 16-bit where plain transformers quantises (it replaces nn.Linear alone)."""
    quantised = run.storage in ("nf4", "nf4_double_quant", "int8")
    return "bf16" if run.path == "transformers" and quantised else run.storage


def workspace_bytes(run: Run) -> int:
    """One cuBLAS workspace."""
    return HOPPER_WORKSPACE_BYTES if run.device.compute_capability[0] == 9 else DEFAULT_WORKSPACE_BYTES


def upcast_bytes(run: Run, weights: WeightBytes) -> int:
    """``prepare_model_for_kbit_training``: every parameter that is not quantised becomes fp32, twice its 16-bit
    bytes.
    """
    if run.path != "transformers" or not run.quantised:
        return 0
    norms = sum(len(group.indices) * block(2 * group.norm_elements) for group in run.architecture.layers)
    return weights.embedding + weights.head + weights.final_norm + norms


def largest_projection(architecture: Architecture) -> int:
    """Elements of the largest linear of any decoder layer, experts apart."""
    return max((linear.weights for group in architecture.layers for linear in group.linears), default=0)


def largest_fused_projection(run: Run) -> int:
    """Elements of the largest linear that one of the fused kernels reads; 0 where none is fused."""
    names = {"q_proj": run.fused.qkv, "k_proj": run.fused.qkv, "v_proj": run.fused.qkv, "o_proj": run.fused.o}
    sizes = (x.weights for g in run.architecture.layers for x in g.linears if names.get(x.name, run.fused.mlp))
    return max(sizes, default=0)


def _base_tensors(architecture: Architecture, itemsize: int, *, through_trainer: bool) -> list[Tensors]:
    """All tensors of the model. transformers' Trainer gives embeddings 32-bit state; a bare loop does not."""
    vocabulary = Tensors(architecture.vocab_size, architecture.hidden_size, 1, itemsize, is_embedding=through_trainer)
    tensors = [vocabulary]
    if not architecture.tie_word_embeddings:
        tensors.append(vocabulary._replace(is_embedding=False))
    for group in architecture.layers:
        count = len(group.indices)
        tensors.append(Tensors(group.norm_elements, 1, count, itemsize))
        for linear in group.linears:
            tensors.append(Tensors(linear.out_features, linear.in_features, count * linear.copies, itemsize))
            if linear.bias:
                tensors.append(Tensors(linear.out_features, 1, count * linear.copies, itemsize))
        if group.experts:
            for one in (group.experts.gate_up, group.experts.down):
                tensors.append(Tensors(group.experts.count, one, count, itemsize))
    return tensors


def _full_finetuning(run: Run, weights: WeightBytes) -> Statics:
    itemsize = 4 if run.storage == "fp32" else 2
    tensors = _base_tensors(run.architecture, itemsize, through_trainer=run.trainer == "sft")
    state, managed, step = _optimizer_bytes(run, tensors, weights.total)
    layer = sum(t.elements for t in tensors[1:]) // max(run.architecture.num_hidden_layers, 1)
    return Statics(
        weights=weights,
        trainable=Trainable(),
        trained_bytes=0,
        gradient_bytes=weights.total,
        first_layer_gradient_bytes=itemsize * layer,
        optimizer_bytes=state,
        optimizer_device_bytes=managed,
        optimizer_step_bytes=step,
        scratch_bytes=0,
        workspace_bytes=workspace_bytes(run),
        head_elements=run.architecture.vocab_size * run.architecture.hidden_size,
        head_gradient_bytes=2 * run.architecture.vocab_size * run.architecture.hidden_size,
    )


def _optimizer_bytes(run: Run, tensors: list[Tensors], parameter_bytes: int) -> tuple[int, int, int]:
    """(state in torch's memory, state in managed memory, temporaries of a step)."""
    optimizer = OPTIMIZER_KINDS[run.job.optim]
    state = managed = largest = 0
    for tensor in tensors:
        size = optimizer.state_bytes(tensor)
        if optimizer.pages(tensor):
            managed += size
        else:
            state += size
        largest = max(largest, 4 * tensor.elements)
    return state, managed, optimizer.step_bytes(parameter_bytes, largest)
