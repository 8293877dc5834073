"""Which attention kernel stands behind an attention implementation.

Source: unsloth/utils/attention_dispatch.py ``select_attention_backend`` and ``_run_attention``;
unsloth/models/gemma2.py.
"""

from __future__ import annotations

from typing import Literal

from estimator.architecture import Architecture
from estimator.device import Device

Kernel = Literal["cudnn", "flash", "flash_attention_2", "xformers", "efficient", "softcap_compiled", "flex", "eager"]


def choose_kernel(implementation: str, architecture: Architecture, device: Device, *, unsloth_forward: bool) -> Kernel:
    """The kernel that runs.

    Measured: torch 2.11 picks cuDNN attention for SDPA on Hopper (allocator snapshots on an H200); other cards of
    compute capability 8 and later take flash, older ones the memory-efficient kernel with expanded keys and values.

    Args:
        unsloth_forward: whether Unsloth's own forward runs, which soft-caps scores in a compiled function (Gemma 2).
    """
    if implementation == "sdpa":
        if architecture.attention_softcap and unsloth_forward:
            return "softcap_compiled"
        major = device.compute_capability[0]
        if major == 9:
            return "cudnn"
        return "flash" if major >= 8 else "efficient"
    if implementation == "flash_attention_2":
        return "flash_attention_2"
    if implementation == "xformers":
        return "xformers"
    return "flex" if implementation == "flex_attention" else "eager"
