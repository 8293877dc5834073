"""Which tensors a checkpoint of a config holds: names and shapes from the model itself, built without memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any, NamedTuple

from estimator import read_config
from estimator.errors import UnsupportedArchitecture

ITEM_BYTES = {"U8": 1, "BF16": 2, "F32": 4}
MXFP4_BLOCK = 32
UNQUANTISED = ("lm_head",)
"""bitsandbytes leaves the head in 16 bit (transformers/quantizers/base.py ``get_modules_to_not_convert``)."""


class Stored(NamedTuple):
    """One tensor of a safetensors file; ``data`` is None where a hole in the file will do."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: bytes | None = None

    @property
    def size(self) -> int:
        return prod(self.shape) * ITEM_BYTES[self.dtype]


def checkpoint_tensors(config: Mapping[str, Any]) -> list[Stored]:
    """Every tensor of a checkpoint, in the form that its ``quantization_config`` names: none, NF4 or MXFP4.

    Raises:
        UnsupportedArchitecture: another form.
    """
    quantization = config.get("quantization_config") or {}
    method = quantization.get("quant_method")
    if method not in (None, "bitsandbytes", "mxfp4") or (method == "bitsandbytes" and not quantization["load_in_4bit"]):
        raise UnsupportedArchitecture(f"a {method} checkpoint is not written by a probe", key="job.model")
    if method == "bitsandbytes" and read_config(config).is_moe:
        message = "experts are not written in NF4 by a probe; Unsloth quantises those of the 16-bit model itself"
        raise UnsupportedArchitecture(message, key="job.model", allowed="the 16-bit model")
    return [
        tensor
        for name, shape, linear in _model_tensors(config)
        for tensor in _stored(name, shape, method if linear else None, quantization)
    ]


def _model_tensors(config: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...], bool]]:
    """(name, shape, whether a quantizer would take it) of every weight of the model."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    plain = {key: value for key, value in config.items() if key != "quantization_config"}
    described = AutoConfig.for_model(plain.pop("model_type"), **plain)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(described, dtype=torch.bfloat16)
    linears = {f"{name}.weight" for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    tied = set(model.all_tied_weights_keys) if described.get_text_config().tie_word_embeddings else set()
    for name, tensor in model.state_dict().items():
        if name not in tied:
            yield name, tuple(tensor.shape), name in linears or _is_expert(name, tensor.shape)


def _is_expert(name: str, shape: Sequence[int]) -> bool:
    return len(shape) == 3 and ".experts." in name


def _stored(name: str, shape: tuple[int, ...], method: str | None, quantization: Mapping[str, Any]) -> list[Stored]:
    from probes.child.nf4 import nf4_tensors

    if method == "mxfp4" and _is_expert(name, shape):
        return _mxfp4_tensors(name, shape)
    skipped = (*UNQUANTISED, *(quantization.get("llm_int8_skip_modules") or ()))
    module = name.removesuffix(".weight")
    kept = len(shape) != 2 or any(module == skip or module.endswith(f".{skip}") for skip in skipped)
    if method == "bitsandbytes" and not kept:
        return nf4_tensors(name, shape)
    return [Stored(name, "BF16", shape)]


def _mxfp4_tensors(name: str, shape: tuple[int, ...]) -> list[Stored]:
    """Packed experts: (E, in, out) in the model, blocks of 32 along ``in`` in the file
    (transformers/integrations/mxfp4.py)."""
    experts, inside, outside = shape
    blocks = inside // MXFP4_BLOCK
    return [
        Stored(f"{name}_blocks", "U8", (experts, outside, blocks, MXFP4_BLOCK // 2)),
        Stored(f"{name}_scales", "U8", (experts, outside, blocks)),
    ]
