"""What a checkpoint's tensors take on the GPU, from the headers of its safetensors files; no weight is read.

A file is a little-endian 64-bit length, that many bytes of JSON ({name: {dtype, shape, data_offsets}}), then
the tensors without gaps. Source: safetensors 0.8.0, ``safetensors/src/tensor.rs``.

A header is input from strangers: lengths are bounded before anything is read, and each tensor's bytes must be
those of its shape and follow on the last one's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

from ctxplan import hub
from estimator.allocator import block
from estimator.architecture import Architecture, StoredWeights
from estimator.errors import ArchitectureError, UnknownModel
from estimator.rules import shorten, shown

MAX_HEADER_BYTES = 100_000_000
"""safetensors' own limit."""
MAX_TENSORS = 1_000_000
MAX_SHARDS = 10_000
MAX_INDEX_BYTES = 100_000_000

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"

_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}
_FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
_SCALES = (
    "absmax",
    "quant_map",
    "nested_absmax",
    "nested_quant_map",
    "SCB",
    "_scale",
    "_scale_inv",
    "_scales",
)
_NOT_ON_THE_GPU = ("weight_format",)
_LAYER = re.compile(r"(?:^|\.)layers\.(\d{1,5})\.(.+)")


class Tensor(NamedTuple):
    """A stored tensor, by its name in the checkpoint."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def read_directory(directory: Path, architecture: Architecture) -> StoredWeights | None:
    """The stored weights of a local checkpoint; None where it has no safetensors files.

    Raises:
        UnknownModel: a file is missing or cannot be read.
        ArchitectureError: a header is not one, or does not belong to this config; the message names the file.
    """
    files = _shards(directory)
    if not files:
        return None
    tensors = [tensor for file in files for tensor in read_header(file)]
    return stored_weights(tensors, architecture, where=shorten(str(directory)))


def read_hub(repository: str, architecture: Architecture, revision: str | None = None) -> StoredWeights:
    """The stored weights of a repository on the Hub, by range reads of its headers.

    Raises:
        UnknownModel: offline, or the repository or its files cannot be read.
        ArchitectureError: a header does not belong to this config.
    """
    hub.check_names(repository, revision)
    if hub.is_offline():
        raise UnknownModel("HF_HUB_OFFLINE is set", key="model", allowed=f"pass {hub.INSTEAD}")

    def ask() -> list[Tensor]:
        from huggingface_hub import HfApi

        api = HfApi(endpoint=hub.endpoint())
        metadata = api.get_safetensors_metadata(repository, revision=revision, timeout=hub.ETAG_SECONDS)
        return [
            Tensor(name, str(info.dtype), tuple(info.shape))
            for file in metadata.files_metadata.values()
            for name, info in file.tensors.items()
        ]

    tensors = hub.ask_hub(repository, ask)
    for tensor in tensors:
        _check_tensor(tensor.name, tensor.dtype, tensor.shape, repository)
    return stored_weights(tensors, architecture, where=repository)


def read_header(file: Path) -> tuple[Tensor, ...]:
    """The tensors of one safetensors file. Errors are those of `read_directory`."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            prefix = stream.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
                raise _malformed(file.name, "its header's length is not possible")
            text = stream.read(length)
    except OSError as error:
        raise _missing(file, error) from error
    header = _json_object(text, file.name)
    header.pop("__metadata__", None)
    return _tensors(header, size - 8 - length, file.name)


def stored_weights(tensors: Iterable[Tensor], architecture: Architecture, *, where: str) -> StoredWeights:
    """Sum tensors by the part of the model that they belong to, each rounded as the allocator does.

    Weights, biases and norms of a float type are loaded in 16 bit whatever they are stored in; packed weights
    and their scales keep their type. bitsandbytes' ``quant_state`` blob stays on the host, and the offset
    that is made of it on the GPU takes the same 512 bytes.
    """
    layers = [0] * architecture.num_hidden_layers
    embedding = head = other = 0
    linears = {linear.path for group in architecture.layers for linear in group.linears}
    kept: list[str] = []
    for tensor in tensors:
        if tensor.name.endswith(_NOT_ON_THE_GPU):
            continue
        size = loaded_bytes(tensor)
        inside = _LAYER.search(tensor.name)
        if inside:
            index = int(inside[1])
            if index >= len(layers):
                raise _malformed(where, f"it has layer {index}, and its config {len(layers)} layers")
            layers[index] += size
            module, _, last = inside[2].rpartition(".")
            if last == "weight" and module in linears and tensor.dtype in _FLOATS:
                kept.append(tensor.name.removesuffix(".weight"))
        elif tensor.name.endswith("embed_tokens.weight"):
            embedding += size
        elif tensor.name.startswith("lm_head."):
            head += 0 if architecture.tie_word_embeddings else size
        else:
            other += size
    if 0 in layers:
        raise _malformed(where, f"it has no tensors of layer {layers.index(0)}")
    quantised = architecture.quantization is not None
    return StoredWeights(
        layers=tuple(layers),
        embedding=embedding,
        lm_head=head,
        other=other,
        sixteen_bit_modules=tuple(sorted(kept)) if quantised else (),
    )


def loaded_bytes(tensor: Tensor) -> int:
    """Bytes of a tensor on the GPU, rounded up to the allocator's 512."""
    plain = tensor.dtype in _FLOATS and not tensor.name.endswith(_SCALES)
    bits = 16 if plain else _BITS[tensor.dtype]
    return block(-(-prod(tensor.shape) * bits // 8))


def _shards(directory: Path) -> list[Path]:
    single, index = directory / SINGLE_NAME, directory / INDEX_NAME
    if single.is_file():
        return [single]
    if not index.is_file():
        return []
    try:
        if index.stat().st_size > MAX_INDEX_BYTES:
            raise _malformed(index.name, f"it is longer than {MAX_INDEX_BYTES} bytes")
        text = index.read_bytes()
    except OSError as error:
        raise _missing(index, error) from error
    weights = _json_object(text, index.name).get("weight_map")
    if not isinstance(weights, Mapping):
        raise _malformed(index.name, "it has no weight_map")
    names = set(map(str, weights.values()))
    if not 0 < len(names) <= MAX_SHARDS:
        raise _malformed(index.name, f"it names {len(names)} files")
    for name in names:
        if not re.fullmatch(r"[\w-][\w.-]*\.safetensors", name):
            raise _malformed(index.name, f"{shown(name)} is not the name of a file beside it")
    missing = sorted(name for name in names if not (directory / name).is_file())
    if len(missing) == len(names):
        return []  # a directory or a cache that has the index alone
    if missing:
        raise UnknownModel(f"{missing[0]} is missing in {shorten(str(directory))}", key="model")
    return [directory / name for name in sorted(names)]


def _tensors(header: Mapping[str, Any], data_bytes: int, file: str) -> tuple[Tensor, ...]:
    if len(header) > MAX_TENSORS:
        raise _malformed(file, f"it has more than {MAX_TENSORS} tensors")
    spans: list[tuple[int, int]] = []
    tensors: list[Tensor] = []
    for name, info in header.items():
        if not isinstance(info, Mapping):
            raise _malformed(file, f"{shown(name)} is not described")
        tensor = _check_tensor(name, info.get("dtype"), info.get("shape"), file)
        begin, end = _offsets(info.get("data_offsets"), name, file)
        if (end - begin) * 8 != prod(tensor.shape) * _BITS[tensor.dtype]:
            raise _malformed(file, f"{shown(name)} has not the bytes of its shape")
        spans.append((begin, end))
        tensors.append(tensor)
    reached = 0
    for begin, end in sorted(spans):
        if begin != reached:
            raise _malformed(file, f"its tensors overlap or leave a gap at byte {min(begin, reached)}")
        reached = end
    if reached != data_bytes:
        raise _malformed(file, f"its tensors end at byte {reached} of {data_bytes}")
    return tuple(tensors)


def _check_tensor(name: str, dtype: object, shape: object, file: str) -> Tensor:
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _malformed(file, f"{shown(name)} has the dtype {shown(dtype)}")
    if not isinstance(shape, list | tuple) or len(shape) > 8 or not all(_is_count(size) for size in shape):
        raise _malformed(file, f"{shown(name)} has the shape {shown(shape)}")
    return Tensor(name, dtype, tuple(shape))


def _offsets(offsets: object, name: str, file: str) -> tuple[int, int]:
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_count(offset) for offset in offsets):
        raise _malformed(file, f"{shown(name)} has the data_offsets {shown(offsets)}")
    return offsets[0], offsets[1]


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _json_object(text: bytes, file: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _malformed(file, "it is not JSON") from error
    if not isinstance(value, dict):
        raise _malformed(file, "it is not an object")
    return value


def _malformed(file: str, reason: str) -> ArchitectureError:
    return ArchitectureError(f"the checkpoint's {file} cannot be used: {reason}", key="model")


def _missing(file: Path, error: OSError) -> UnknownModel:
    return UnknownModel(f"{shorten(str(file))} cannot be read ({type(error).__name__})", key="model")
