"""What Unsloth's smart checkpointing keeps on the host, and how one length's buffers are given back before the next.

Source: unsloth_zoo/gradient_checkpointing.py ``CPU_BUFFERS``, ``OFFLOAD_SLOT_META``,
``initialize_unsloth_gradient_checkpointing`` and ``_empty_host_cache``.
"""

from __future__ import annotations

import gc
from importlib import import_module
from types import ModuleType
from typing import Any


def offloading(smart: ModuleType | None = None) -> dict[str, Any]:
    """The fields of `probes.measurement.Ran` about layer inputs on the host, as they are after a step."""
    smart = smart or _smart()
    buffers = [b for b in smart.CPU_BUFFERS or () if b is not None and b.numel() > smart.INITIAL_CPU_BUFFER_SIZE]
    return {
        "inputs_offloaded": len(buffers),
        "inputs_offloaded_last": _in_the_last_graph(smart),
        "pinned_buffers": sum(1 for buffer in buffers if buffer.is_pinned()),
        "double_buffer": bool(getattr(smart, "USE_DOUBLE_BUFFER", False)) if buffers else None,
    }


def renew_buffers(smart: ModuleType | None = None) -> None:
    """Put buffers of their first size in the place of Unsloth's, as a load does.

    Its own ``reset_unsloth_gradient_checkpointing_buffers`` calls ``resize_``, which never shrinks a storage: what the
    last length needed would stay pinned. Outside mode ``"unsloth"`` there are none.
    """
    smart = smart or _smart()
    if not smart.CPU_BUFFERS or smart.GPU_BUFFERS is None:
        return
    smart.reset_unsloth_gradient_checkpointing_buffers()
    smart.initialize_unsloth_gradient_checkpointing(getattr(smart, "GPU_BUFFER_DTYPE", None))
    forget_released = getattr(smart, "_empty_host_cache", None)
    if forget_released is not None:  # it counts the blocks that it released, and takes them for its own
        forget_released()


def empty_host_cache() -> None:
    """Give the pinned blocks that nobody uses back to the host. Where torch has no way to, they stay, and
    `pinned_reserved` says so."""
    import torch

    gc.collect()
    torch.cuda.synchronize()
    empty = getattr(torch._C, "_host_emptyCache", None)
    if empty is not None:
        empty()


def pinned_reserved() -> int | None:
    """Bytes that torch's pinned host allocator holds; None without a GPU."""
    import torch

    if not torch.cuda.is_available():
        return None
    held: int | None = torch.cuda.host_memory_stats().get("allocated_bytes.current")
    return held


def _in_the_last_graph(smart: ModuleType) -> int | None:
    """Every offload of a forward leaves its record there until the next forward begins; a recompute leaves none."""
    records = getattr(smart, "OFFLOAD_SLOT_META", None)
    return None if records is None else sum(1 for record in records if record is not None)


def _smart() -> ModuleType:
    return import_module("unsloth_zoo.gradient_checkpointing")
