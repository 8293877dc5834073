"""Random values for the weights of a synthetic checkpoint, in place: activations stay finite, and a mixture of experts
routes as an untrained router does, close to evenly."""

from __future__ import annotations

from typing import Any

from probes.child.nf4 import NESTED_ABSMAX

STD = 0.02
INT8_SCALE = STD * 3**0.5
"""bitsandbytes' LLM.int8 keeps the largest of each row, for which 127 stands: uniform values up to ``STD`` times the
root of 3 deviate by ``STD``."""
MXFP4_SCALE = 120
"""2^(120 - 127): an e8m0 exponent that puts e2m1 values of up to 6 near 0.02."""
FP8_SCALE = STD / 104
"""The codes of e4m3, each as often as another, deviate by about 104 (their largest is 448)."""
FP8_SCALES = ("weight_scale", "weight_scale_inv")
"""What modules of fp8 weights call a scale (transformers/integrations/finegrained_fp8.py, fbgemm_fp8.py)."""
FINITE = {"float8_e4m3fn": 0xFE, "float8_e4m3fnuz": 0x7F, "float8_e5m2": 0xBF, "float8_e5m2fnuz": 0x3F}
"""Bits to keep of a byte so that no code of the type is infinite or NaN: in e4m3fn all but the last, since NaN is all
ones; in e5m2 all but the exponent's first; in the others NaN is minus zero, so no sign."""


def fill_weights(model: Any, *, seed: int = 0) -> None:
    """Fill every parameter and every quantised weight of ``model``; its memory does not change."""
    import torch

    torch.manual_seed(seed)
    with torch.no_grad():
        for name, module in model.named_modules():
            for short, tensor in module._parameters.items():
                if tensor is not None:
                    _fill(f"{name}.{short}", tensor)
            for short, tensor in module._buffers.items():
                if tensor is not None and (tensor.dtype == torch.uint8 or short in FP8_SCALES):
                    _fill(f"{name}.{short}", tensor)


def _fill(name: str, tensor: Any) -> None:
    import torch

    state = getattr(tensor, "quant_state", None)
    if state is not None:
        _fill_nf4(tensor, state)
    elif hasattr(tensor, "qdata") and hasattr(tensor, "scale"):  # torchao's Float8Tensor
        _fill(name, tensor.qdata)
        tensor.scale.fill_(FP8_SCALE)
    elif tensor.dtype in (torch.uint8, torch.int8):
        _fill_packed(name, tensor)
    elif str(tensor.dtype).removeprefix("torch.") in FINITE:
        _fill_fp8(tensor)
    elif tensor.is_floating_point() and tensor.element_size() >= 2:
        _fill_floats(name, tensor)


def _fill_fp8(tensor: Any) -> None:
    """Any code that is a number; torch draws none of these types itself."""
    import torch

    codes = tensor.data.view(torch.uint8)
    codes.random_().bitwise_and_(FINITE[str(tensor.dtype).removeprefix("torch.")])


def _fill_nf4(tensor: Any, state: Any) -> None:
    tensor.data.random_()
    if state.nested:
        state.absmax.random_()
        state.state2.absmax.fill_(NESTED_ABSMAX)
    else:
        state.absmax.uniform_(0.02, 0.04)


def _fill_packed(name: str, tensor: Any) -> None:
    import torch

    if tensor.dtype == torch.int8:
        tensor.data.random_(-127, 128)
        if getattr(tensor, "SCB", None) is not None:
            tensor.SCB.fill_(INT8_SCALE)
    elif "scale" in name:
        tensor.data.fill_(MXFP4_SCALE)
    else:
        tensor.data.random_()


def _fill_floats(name: str, tensor: Any) -> None:
    short = name.rpartition(".")[2]
    if short in FP8_SCALES:
        tensor.data.fill_(FP8_SCALE)
    elif short.endswith("bias"):
        tensor.data.zero_()
    elif "norm" in name.lower() and tensor.dim() == 1:
        # Gemma adds 1 to its norm weights; either way the scale stays near 1.
        tensor.data.fill_(1.0)
    else:
        tensor.data.normal_(0.0, STD)
