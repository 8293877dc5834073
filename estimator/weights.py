"""Bytes of the frozen (or, in full fine-tuning, trained) base weights, by how they are stored.

n = in_features * out_features of one linear layer. Norms, biases, embeddings and the head are never quantised.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from estimator.allocator import block
from estimator.architecture import Architecture, Experts, LayerGroup, Linear, Quantization

Storage = Literal["nf4_double_quant", "nf4", "int8", "fp8", "mxfp4", "bf16", "fp32"]

NF4_BLOCK = 64
NESTED_BLOCK = 256
NF4_TABLES = block(16 * 4) + block(256 * 4) + block(4)
"""quant_map (16 fp32), nested_quant_map (256 fp32) and the offset: 2,048 B a tensor, each in its own block."""
FP8_TILE = 128
MXFP4_BLOCK = 32


def tensor_bytes(elements: int, storage: Storage, *, rows: int = 1) -> int:
    """Allocated bytes of one weight of ``elements``, of which ``rows`` output rows, its scales included.

    Source: bitsandbytes/functional.py ``quantize_4bit`` (block 64, absmax quantised again in blocks of 256);
    measured: 44,032 B beyond the packed bytes for the 21 linears of a 3-layer 70B.
    """
    if storage in ("bf16", "fp32"):
        return block(elements * (2 if storage == "bf16" else 4))
    if storage == "int8":
        return block(elements) + block(4 * rows)
    if storage == "fp8":
        tiles = -(-rows // FP8_TILE) * -(-(elements // max(rows, 1)) // FP8_TILE)
        return block(elements) + block(4 * tiles)
    if storage == "mxfp4":
        return block(elements // 2) + block(elements // MXFP4_BLOCK)
    blocks = -(-elements // NF4_BLOCK)
    packed = block(-(-elements // 2))
    if storage == "nf4":
        return packed + block(4 * blocks) + block(16 * 4)
    return packed + block(blocks) + block(4 * -(-blocks // NESTED_BLOCK)) + NF4_TABLES


class WeightBytes(NamedTuple):
    """Base weights on the GPU, in bytes. ``head`` is 0 where the head is the embedding (tied)."""

    layers: int
    embedding: int
    head: int
    final_norm: int

    @property
    def total(self) -> int:
        return self.layers + self.embedding + self.head + self.final_norm


def weight_bytes(architecture: Architecture, storage: Storage, experts: Storage | None = None) -> WeightBytes:
    """All base weights as ``storage`` keeps them; the checkpoint's own bytes where its headers were read.

    Args:
        experts: how stacked experts are kept, where that differs: bitsandbytes replaces nn.Linear alone, so that plain
            transformers leaves them in 16 bit, and Unsloth quantises them itself.
    """
    sixteen: Storage = "fp32" if storage == "fp32" else "bf16"
    embedding = tensor_bytes(architecture.vocab_size * architecture.hidden_size, sixteen)
    head = 0 if architecture.tie_word_embeddings else embedding
    return WeightBytes(
        layers=layer_weight_bytes(architecture, storage, experts or storage),
        embedding=embedding,
        head=head,
        final_norm=tensor_bytes(architecture.final_norm_elements, sixteen),
    )


def layer_weight_bytes(architecture: Architecture, storage: Storage, experts: Storage) -> int:
    """All decoder layers' weights. Cost grows with the kinds of layer, not with their number."""
    stored = architecture.stored
    if stored is not None and keeps_checkpoint(architecture.quantization, storage):
        return sum(stored.layers[: architecture.num_hidden_layers])
    skipped = SkippedModules(architecture.quantization)
    return sum(_group_bytes(group, storage, experts, skipped) for group in architecture.layers)


def keeps_checkpoint(quantization: Quantization | None, storage: Storage) -> bool:
    """Whether the weights stay as the checkpoint has them (and its headers' bytes are the truth)."""
    if quantization is None:
        return storage == "bf16"
    return storage == checkpoint_storage(quantization)


def checkpoint_storage(quantization: Quantization) -> Storage:
    """The storage of a pre-quantised checkpoint."""
    if quantization.method == "bitsandbytes_4bit":
        return "nf4_double_quant" if quantization.double_quant else "nf4"
    return {"bitsandbytes_8bit": "int8", "mxfp4": "mxfp4", "fp8": "fp8"}[quantization.method]  # type: ignore[return-value]


class SkippedModules:
    """Which linears a ``llm_int8_skip_modules`` list keeps in 16 bit.

    An entry is a full path (``model.layers.3.mlp.down_proj``), a path inside a layer, or a module name.
    Source: transformers/quantizers/quantizers_utils.py ``should_convert_module``.
    """

    __slots__ = ("_by_layer", "_everywhere")

    def __init__(self, quantization: Quantization | None) -> None:
        self._everywhere: set[str] = set()
        self._by_layer: dict[int, set[str]] = {}
        for entry in quantization.skip_modules if quantization else ():
            before, found, after = entry.partition("layers.")
            index, _, path = after.partition(".")
            if found and index.isdigit() and before.rpartition(".")[2] == "":
                self._by_layer.setdefault(int(index), set()).add(path)
            else:
                self._everywhere.add(entry)

    def layers(self, linear: Linear, indices: tuple[int, ...]) -> int:
        """In how many of the layers ``indices`` this linear stays in 16 bit."""
        if not self._everywhere and not self._by_layer:
            return 0
        if self._covers(self._everywhere, linear.path):
            return len(indices)
        members = frozenset(indices)
        return sum(1 for i, paths in self._by_layer.items() if i in members and self._covers(paths, linear.path))

    @staticmethod
    def _covers(entries: set[str], path: str) -> bool:
        return any(e == "" or e == path or path.endswith("." + e) or path.startswith(e + ".") for e in entries)


def _group_bytes(group: LayerGroup, storage: Storage, experts: Storage, skipped: SkippedModules) -> int:
    sixteen: Storage = "fp32" if storage == "fp32" else "bf16"
    # The experts alone are MXFP4 in a gpt_oss checkpoint; its attention and router are 16-bit.
    linears: Storage = "bf16" if storage == "mxfp4" else storage
    count = len(group.indices)
    total = count * tensor_bytes(group.norm_elements, sixteen)
    for linear in group.linears:
        kept = skipped.layers(linear, group.indices)
        quantised = tensor_bytes(linear.weights, linears, rows=linear.out_features)
        whole = tensor_bytes(linear.weights, sixteen)
        bias = tensor_bytes(linear.out_features, sixteen) if linear.bias else 0
        total += linear.copies * ((count - kept) * quantised + kept * whole + count * bias)
    if group.experts:
        total += count * _expert_bytes(group.experts, experts)
    return total


def _expert_bytes(experts: Experts, storage: Storage) -> int:
    sixteen: Storage = "fp32" if storage == "fp32" else "bf16"
    stacks = sum(
        tensor_bytes(experts.count * one, storage, rows=experts.count) for one in (experts.gate_up, experts.down)
    )
    return stacks + tensor_bytes(experts.biases, sixteen) + tensor_bytes(experts.router, sixteen)
