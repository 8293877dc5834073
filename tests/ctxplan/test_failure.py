"""What an error says of the memory that ended; torch's errors are known by their names and words."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import pytest

from ctxplan.failure import Numbers, is_out_of_memory, numbers_of, phase_of

GIB, MIB = 2**30, 2**20
TORCH = (
    "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.18 GiB of which 5.50 MiB is "
    "free. Including non-PyTorch memory, this process has 79.17 GiB memory in use. Of the allocated memory 78.00 GiB "
    "is allocated by PyTorch, and 512.00 KiB is reserved by PyTorch but unallocated. If reserved but unallocated "
    "memory is large try setting PYTORCH_ALLOC_CONF=expandable_segments:True to avoid fragmentation."
)


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class BackendCompilerFailed(Exception):
    """As torch.compile wraps what its compiler raised."""

    def __init__(self, inner: Exception) -> None:
        super().__init__("backend='inductor' raised")
        self.inner_exception = inner


def caused() -> Exception:
    error = ValueError("a step failed")
    error.__cause__ = OutOfMemoryError(TORCH)
    return error


@pytest.mark.parametrize(
    "error",
    [
        OutOfMemoryError(TORCH),
        MemoryError(),
        RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
        BackendCompilerFailed(OutOfMemoryError(TORCH)),
        caused(),
    ],
)
def test_whose_memory_ended_is_known_by_name_words_and_cause(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [ValueError("shapes"), ValueError("if you run out of memory, lower r"), RuntimeError("CUDA error: illegal")],
)
def test_another_error_is_none_though_it_speaks_of_memory(error: Exception) -> None:
    assert not is_out_of_memory(error)


def test_a_circle_of_causes_ends() -> None:
    one, other = ValueError("a"), ValueError("b")
    one.__cause__, other.__cause__ = other, one
    assert not is_out_of_memory(one)


def test_the_allocators_words_are_bytes() -> None:
    assert numbers_of(OutOfMemoryError(TORCH)) == Numbers(20 * MIB, round(5.5 * MIB), 78 * GIB, 512 * 2**10)
    assert numbers_of(OutOfMemoryError("Tried to allocate 512 bytes")).tried_bytes == 512
    assert numbers_of(MemoryError()) == Numbers()


def named(name: str, inner: Callable[[], None], file: str = "<run>") -> Callable[[], None]:
    """A function of that name, in that file, that calls another."""
    scope: dict[str, Any] = {"inner": inner}
    exec(compile(f"def {name}():\n    inner()", file, "exec"), scope)  # noqa: S102 - frames are known by name and file
    made = scope[name]
    assert isinstance(made, FunctionType)
    return made


def ends() -> None:
    raise OutOfMemoryError(TORCH)


@pytest.mark.parametrize(
    ("frames", "phase"),
    [
        ((("train", ""), ("compute_loss", ""), ("forward", "")), "forward"),
        ((("compute_loss", ""), ("forward", ""), ("fast_cross_entropy_loss", "")), "loss"),
        ((("training_step", ""), ("backward", ""), ("forward", "")), "backward"),
        ((("evaluate", ""), ("evaluation_loop", ""), ("forward", "")), "evaluation"),
        ((("train", ""), ("step", "torch/optim/adamw.py")), "optimizer"),
        ((("train", ""), ("step", "accelerate/tracking.py")), None),
        ((("from_pretrained", ""),), "load"),
        ((("main", ""),), None),
    ],
)
def test_the_phase_is_known_by_what_was_running(frames: Any, phase: str | None) -> None:
    run: Callable[[], None] = ends
    for name, file in reversed(frames):
        run = named(name, run, file or "<run>")
    with pytest.raises(OutOfMemoryError) as raised:
        run()
    assert phase_of(raised.value) == phase
