"""Random values for the weights of a synthetic checkpoint, in place: activations stay finite, and a mixture of experts
routes as an untrained router does, close to evenly."""

from __future__ import annotations

from typing import Any

from probes.child.nf4 import NESTED_ABSMAX

STD = 0.02
INT8_SCALE = STD * 127
"""bitsandbytes' LLM.int8 keeps the largest of each row, and 127 stands for it."""
MXFP4_SCALE = 120
"""2^(120 - 127): an e8m0 exponent that puts e2m1 values of up to 6 near 0.02."""


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
                if tensor is not None and tensor.dtype == torch.uint8:
                    _fill(f"{name}.{short}", tensor)


def _fill(name: str, tensor: Any) -> None:
    import torch

    state = getattr(tensor, "quant_state", None)
    if state is not None:
        _fill_nf4(tensor, state)
    elif tensor.dtype in (torch.uint8, torch.int8):
        _fill_packed(name, tensor)
        if getattr(tensor, "SCB", None) is not None:
            tensor.SCB.fill_(INT8_SCALE)
    elif tensor.is_floating_point() and tensor.element_size() >= 2:
        _fill_floats(name, tensor)


def _fill_nf4(tensor: Any, state: Any) -> None:
    tensor.data.random_()
    if state.nested:
        state.absmax.random_()
        state.state2.absmax.fill_(NESTED_ABSMAX)
    else:
        state.absmax.uniform_(0.02, 0.04)


def _fill_packed(name: str, tensor: Any) -> None:
    if "scale" in name:
        tensor.data.fill_(MXFP4_SCALE)
    else:
        tensor.data.random_()


def _fill_floats(name: str, tensor: Any) -> None:
    if name.endswith("bias"):
        tensor.data.zero_()
    elif "norm" in name.lower() and tensor.dim() == 1:
        # Gemma adds 1 to its norm weights; either way the scale stays near 1.
        tensor.data.fill_(1.0)
    else:
        tensor.data.normal_(0.0, STD)
