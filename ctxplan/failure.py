"""What an error says of the memory that ended: whose it was, how much was asked for, and in which part of the run.

Needs no torch: its errors are known by their names and by what its CUDA allocator writes. A sentence that a release
words otherwise gives no number, and the error is explained without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from traceback import walk_tb
from typing import NamedTuple

OUT_OF_MEMORY = "OutOfMemoryError"
GPU_MEMORY = re.compile(
    r"CUDA (?:driver )?(?:error: )?out of memory|Triton Error \[CUDA\]: out of memory|_ALLOC_FAILED"
)
HOST_MEMORY = re.compile(
    r"DefaultCPUAllocator: (?:can't allocate|not enough) memory|Cannot allocate memory|std::bad_alloc"
)
SIZE = r"([0-9.]+) (bytes|[KMGT]iB)"
TRIED = re.compile(rf"[Tt]ried to allocate {SIZE}")
FREE = re.compile(rf"of which {SIZE} is free")
ALLOCATED = re.compile(rf"{SIZE} is allocated by PyTorch")
UNALLOCATED = re.compile(rf"{SIZE} is reserved by PyTorch but unallocated")
UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}

LOSSES = frozenset(
    {
        "ForCausalLMLoss",
        "cross_entropy",
        "fast_cross_entropy_loss",
        "fixed_cross_entropy",
        "fused_linear_cross_entropy",
        "unsloth_fused_ce_loss",
    }
)
"""Source: transformers 5.17.0, ``loss/loss_utils.py``; unsloth 2026.10.9, ``kernels/cross_entropy_loss.py``; its
unsloth_zoo, ``loss_utils.py`` and ``fused_losses``."""

PHASES = (
    ("evaluation", frozenset({"evaluate", "evaluation_loop", "prediction_step"})),
    ("backward", frozenset({"backward", "_engine_run_backward"})),
    ("loss", LOSSES),
    ("forward", frozenset({"forward", "compute_loss"})),
    ("load", frozenset({"from_pretrained", "get_peft_model"})),
)
"""Functions that only run in a phase, the innermost phase first: a checkpointed layer's forward runs in a backward."""


class Numbers(NamedTuple):
    """What the allocator wrote into its error, bytes; None for what it did not."""

    tried_bytes: int | None = None
    free_bytes: int | None = None
    allocated_bytes: int | None = None
    unallocated_bytes: int | None = None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the GPU's or the host's memory ended, as the error says or one that it was raised from."""
    return any(_is_one(found) for found in causes(error))


def is_of_the_host(error: BaseException) -> bool:
    """Whether it was the host's memory that ended, and not the GPU's."""
    found = list(causes(error))
    on_the_gpu = any(GPU_MEMORY.search(str(one)) or _named(one) for one in found)
    return not on_the_gpu and any(isinstance(one, MemoryError) or HOST_MEMORY.search(str(one)) for one in found)


def numbers_of(error: BaseException) -> Numbers:
    """The bytes in the allocator's own words."""
    text = "\n".join(str(found) for found in causes(error))
    return Numbers(*(_bytes(pattern, text) for pattern in (TRIED, FREE, ALLOCATED, UNALLOCATED)))


def phase_of(error: BaseException) -> str | None:
    """The phase, by the functions that were running; None where they tell none."""
    running, optimizer = set(), False
    for frame, _ in walk_tb(error.__traceback__):
        running.add(frame.f_code.co_name)
        optimizer = optimizer or (frame.f_code.co_name == "step" and "optim" in frame.f_code.co_filename)
    if optimizer:
        return "optimizer"
    return next((phase for phase, functions in PHASES if functions & running), None)


def _is_one(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or _named(error):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and bool(GPU_MEMORY.search(text) or HOST_MEMORY.search(text))


def _named(error: BaseException) -> bool:
    """Whether torch's own error for a device says it."""
    return any(kind.__name__ == OUT_OF_MEMORY for kind in type(error).__mro__)


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what it was raised from; torch.compile keeps a compiler's in ``inner_exception``."""
    seen: list[BaseException] = []
    found: BaseException | None = error
    while found is not None and found not in seen:
        yield found
        seen.append(found)
        found = found.__cause__ or getattr(found, "inner_exception", None)


def _bytes(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return round(float(found[1]) * UNITS[found[2]]) if found else None
