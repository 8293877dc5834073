"""How PyTorch's CUDA caching allocator turns tensors into bytes: allocated, reserved, and what the driver counts.

Source: c10/cuda/CUDACachingAllocator.cpp (torch 2.11): ``kMinBlockSize`` 512; with ``expandable_segments:True``, which
unsloth_zoo/__init__.py sets on torch >= 2.10, a segment grows by 2 MiB pages and nothing else is rounded.
"""

from __future__ import annotations

KIB, MIB, GIB = 2**10, 2**20, 2**30
BLOCK_BYTES = 512


def block(size_bytes: int) -> int:
    """Bytes the allocator counts for one tensor: rounded up to 512."""
    return (size_bytes + BLOCK_BYTES - 1) // BLOCK_BYTES * BLOCK_BYTES


def next_power_of_two(size_bytes: int) -> int:
    """The pinned-memory block for a request (at::CachingHostAllocator rounds up to a power of two)."""
    return 1 << max(0, size_bytes - 1).bit_length()
