"""Tells what an exception in the measured process means: whose memory ended, what was refused, what broke.

Needs no torch: exceptions of its are known by their names and by what CUDA, cuBLAS, cuDNN, Triton and torch's CPU
allocator write.
"""

from __future__ import annotations

import errno
import linecache
import re
from traceback import extract_tb

from ctxplan.failure import causes
from estimator.errors import CtxplanError
from probes.errors import WrongBatch

GPU_MEMORY = re.compile(
    r"CUDA out of memory"
    r"|CUDA (?:driver )?error: out of memory"
    r"|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY"
    r"|CU(?:BLAS|BLASLT|DNN|SOLVER|SPARSE)_STATUS_ALLOC_FAILED"
    r"|Triton Error \[CUDA\]: out of memory"
)
HOST_MEMORY = re.compile(
    r"DefaultCPUAllocator: (?:can't allocate|not enough) memory|Cannot allocate memory|std::bad_alloc"
    r"|cudaHostAlloc|cudaHostRegister|cudaMallocHost"
)
PINNING = re.compile(r"pin_memory|cudaHostAlloc|cudaHostRegister|cudaMallocHost")
"""Where host memory is pinned, the driver writes the words that it has for its own memory."""
DEVICE_FAILED = re.compile(
    r"^(?:CUDA (?:driver )?error|cuDNN error|Triton Error \[CUDA\]|NCCL (?:error|Error))"
    r"(?!.*(?:no kernel image|not supported|NOT_SUPPORTED|ARCH_MISMATCH|invalid device function|out of resource))",
    re.DOTALL,
)
"""An illegal access or a launch that failed: nothing that the stack refused, and it may not come again."""
REFUSALS = (ImportError, NotImplementedError, RuntimeError, ValueError, TypeError)


def kind_of(error: BaseException) -> str | None:
    """The kind of failed event (`probes.protocol`) that the exception is; None where it cannot be told apart."""
    if isinstance(error, WrongBatch):
        return "crashed"
    if isinstance(error, CtxplanError):
        return "unavailable"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "unavailable"
    for found in causes(error):
        kind = _memory_that_ended(found)
        if kind is not None:
            return kind
    if isinstance(error, RuntimeError) and DEVICE_FAILED.search(str(error)):
        return "crashed"
    return "not_supported" if isinstance(error, REFUSALS) else None


def is_allocators(error: BaseException) -> bool:
    """Whether torch's CUDA allocator itself refused, and so told its observers what it was asked for."""
    return any(type(found).__name__ == "OutOfMemoryError" for found in causes(error))


def _memory_that_ended(error: BaseException) -> str | None:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return "host_out_of_memory"
    if type(error).__name__ == "OutOfMemoryError":
        return "out_of_memory"
    if not isinstance(error, RuntimeError):  # advice about memory in another error is not the end of it
        return None
    message = str(error)
    if HOST_MEMORY.search(message):
        return "host_out_of_memory"
    if GPU_MEMORY.search(message):
        return "host_out_of_memory" if _was_pinning(error) else "out_of_memory"
    return None


def _was_pinning(error: BaseException) -> bool:
    """Whether the line that raised it asked for pinned memory."""
    frames = extract_tb(error.__traceback__)
    if not frames:
        return False
    last = frames[-1]
    first = last.lineno or 0
    lines = (linecache.getline(last.filename, number) for number in range(first, (last.end_lineno or first) + 1))
    return PINNING.search("".join(lines)) is not None
