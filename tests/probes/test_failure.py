"""What an exception in the measured process means: real ones of torch where a CPU raises them, made ones elsewhere."""

from __future__ import annotations

import errno
import os
import re
from asyncio import Future, new_event_loop
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from estimator.errors import JobError
from probes.child.__main__ import _ended_well
from probes.errors import PointError, WrongBatch
from probes.failure import is_allocators, kind_of
from probes.protocol import Events, Failed, read_event

torch = pytest.importorskip("torch")

CUDA_SAYS = """CUDA error: out of memory
Search for `cudaErrorMemoryAllocation' in the CUDA documentation for more information.
CUDA kernel errors might be asynchronously reported at some other API call."""
HUGE = 2**60


def caught(act: Callable[[], object]) -> BaseException:
    """The exception that a call ends with, with its traceback."""
    try:
        act()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def thrower(error: BaseException) -> Callable[[], NoReturn]:
    """A call that raises as C code does: the line that makes it is the last of the traceback."""
    loop = new_event_loop()
    future: Future[NoReturn] = Future(loop=loop)
    future.set_exception(error)
    future.exception()
    loop.close()
    return future.result


class TestHostMemory:
    def test_torchs_own_allocator_on_the_cpu(self) -> None:
        error = caught(lambda: torch.empty(HUGE, dtype=torch.uint8))
        assert type(error) is RuntimeError
        assert kind_of(error) == "host_out_of_memory"

    def test_the_same_in_the_words_of_another_platform(self) -> None:
        error = RuntimeError(
            "[enforce fail at alloc_cpu.cpp:75] data. DefaultCPUAllocator: not enough memory: you tried"
        )
        assert kind_of(error) == "host_out_of_memory"

    def test_pythons_and_numpys_memory_errors(self) -> None:
        numpy = pytest.importorskip("numpy")
        assert kind_of(caught(lambda: bytearray(HUGE))) == "host_out_of_memory"
        assert kind_of(caught(lambda: numpy.empty(HUGE, dtype=numpy.uint8))) == "host_out_of_memory"

    def test_a_mapping_that_the_system_refuses(self) -> None:
        assert kind_of(OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))) == "host_out_of_memory"
        assert kind_of(RuntimeError("unable to mmap 9 bytes: Cannot allocate memory (12)")) == "host_out_of_memory"

    def test_a_buffer_that_cannot_be_pinned_although_the_driver_has_the_same_words_for_its_own_memory(self) -> None:
        raised = thrower(torch.AcceleratorError(CUDA_SAYS))
        in_a_line = caught(lambda: dict(size=raised(), pin_memory=True))
        assert kind_of(in_a_line) == "host_out_of_memory"

        def in_several_lines() -> object:
            return raised(
                *(),  # here torch.empty has its pin_memory=True
            )

        assert kind_of(caught(in_several_lines)) == "host_out_of_memory"

    @pytest.mark.parametrize("call", ["cudaHostAlloc", "cudaHostRegister"])
    def test_a_message_that_names_the_call(self, call: str) -> None:
        assert kind_of(RuntimeError(f"CUDA error: out of memory when calling `{call}(...)`")) == "host_out_of_memory"


class TestGpuMemory:
    def test_torchs_allocator_on_the_gpu(self) -> None:
        error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        assert kind_of(error) == "out_of_memory"
        assert is_allocators(error)

    @pytest.mark.parametrize(
        "error",
        [
            torch.AcceleratorError(CUDA_SAYS),
            RuntimeError(CUDA_SAYS),
            RuntimeError("CUDA driver error: out of memory"),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
            RuntimeError("Triton Error [CUDA]: out of memory"),
        ],
    )
    def test_the_driver_and_its_libraries(self, error: Exception) -> None:
        assert kind_of(error) == "out_of_memory"
        assert not is_allocators(error)
        assert kind_of(caught(thrower(error))) == "out_of_memory"

    def test_a_compiler_that_wraps_it(self) -> None:
        inner = torch.OutOfMemoryError("CUDA out of memory.")
        assert kind_of(caught(lambda: _raise_from(RuntimeError("backend failed"), inner))) == "out_of_memory"
        wrapped = RuntimeError("backend failed")
        wrapped.inner_exception = inner  # type: ignore[attr-defined]
        assert kind_of(wrapped) == "out_of_memory"
        assert is_allocators(wrapped)


class TestOthers:
    @pytest.mark.parametrize(
        "text",
        [
            "CUDA error: an illegal memory access was encountered",
            "CUDA error: unspecified launch failure",
            "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasGemmEx`",
            "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
            "Triton Error [CUDA]: device-side assert triggered",
        ],
    )
    def test_a_device_that_failed_is_a_crash(self, text: str) -> None:
        assert kind_of(torch.AcceleratorError(text)) == kind_of(RuntimeError(text)) == "crashed"

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("CUDA error: no kernel image is available for execution on the device"),
            RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
            RuntimeError("out of resource: shared memory, Required: 280000, Hardware limit: 232448"),
            ValueError("choose a smaller batch, or you may run CUDA out of memory"),
            NotImplementedError("no such attention"),
            ImportError("FlashAttention2 is not installed"),
        ],
    )
    def test_what_the_stack_refuses_is_not_supported(self, error: Exception) -> None:
        assert kind_of(error) == "not_supported"

    def test_a_real_refusal_of_torchs_is_not_supported(self) -> None:
        assert kind_of(caught(lambda: torch.zeros(2) @ torch.zeros(3))) == "not_supported"

    def test_another_batch_than_the_points_is_a_crash_and_not_a_refusal(self) -> None:
        assert kind_of(WrongBatch("the model was given 32 tokens a micro-batch, 64 were asked for")) == "crashed"

    def test_what_the_machine_lacks_is_unavailable(self) -> None:
        assert kind_of(PointError("no such layers")) == kind_of(JobError("no")) == "unavailable"
        assert kind_of(OSError(errno.ENOSPC, "full")) == "unavailable"

    def test_an_error_that_tells_nothing_is_left_to_end_the_process(self) -> None:
        assert kind_of(KeyError("x")) is None
        assert kind_of(OSError(errno.EIO, "broken")) is None

    def test_memory_that_ended_earlier_and_was_made_good_is_not_the_reason(self) -> None:
        def recover() -> None:
            try:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            except torch.OutOfMemoryError:
                raise ValueError("the retry is not supported") from None

        assert kind_of(caught(recover)) == "not_supported"


class TestToldByTheProcess:
    """What the parent hears of it."""

    def told(self, error: Exception, **session: Any) -> Failed:
        reads, writes = os.pipe()
        with os.fdopen(reads, "rb") as pipe:
            assert not _ended_well(self.session(**session), thrower(error), Events(writes))
            os.close(writes)
            event = read_event(pipe.read())
        assert isinstance(event, Failed)
        return event

    def session(self, facts: Callable[[], dict[str, Any]] = lambda: {"steps_run": 1}) -> Any:
        refusal = {"tried_bytes": 5, "allocated_bytes": 6, "reserved_bytes": 7}
        meter = SimpleNamespace(last_refusal=refusal)
        return SimpleNamespace(index=0, phase="backward", step=2, meter=meter, facts_so_far=facts)

    def test_out_of_memory_with_what_the_allocator_was_asked_for(self) -> None:
        event = self.told(torch.OutOfMemoryError("CUDA out of memory. Tried\nmore lines"))
        assert (event.kind, event.message, event.facts) == (
            "out_of_memory",
            "CUDA out of memory. Tried",
            {"steps_run": 1},
        )
        assert event.out_of_memory is not None
        assert (event.out_of_memory["tried_bytes"], event.out_of_memory["step"]) == (5, 2)

    def test_out_of_memory_of_a_library_without_what_the_allocator_was_asked_for_before(self) -> None:
        event = self.told(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"))
        assert event.out_of_memory is not None
        assert event.out_of_memory["tried_bytes"] is None

    @pytest.mark.parametrize(
        ("error", "kind", "said"),
        [
            (MemoryError(), "host_out_of_memory", "backward: MemoryError"),
            (WrongBatch("32 tokens"), "crashed", "^32 tokens$"),
            (RuntimeError("CUDA error: misaligned address"), "crashed", "backward: RuntimeError: CUDA error"),
            (OSError(errno.ENOSPC, "full", "/work"), "unavailable", "no space left on the disk of /work"),
            (TypeError("x" * 9000), "not_supported", "^backward: TypeError: x+$"),
        ],
    )
    def test_the_kind_with_a_line_of_what_was_wrong(self, error: Exception, kind: str, said: str) -> None:
        event = self.told(error)
        assert (event.kind, event.out_of_memory) == (kind, None)
        assert re.search(said, event.message)
        assert len(event.message) <= 2000

    def test_a_device_that_cannot_even_say_what_it_holds_is_told_of_all_the_same(self) -> None:
        def broken() -> dict[str, Any]:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")

        event = self.told(RuntimeError("CUDA error: an illegal memory access was encountered"), facts=broken)
        assert (event.kind, event.facts) == ("crashed", {})

    def test_an_error_that_tells_nothing_passes_through(self) -> None:
        with pytest.raises(KeyError):
            _ended_well(self.session(), thrower(KeyError("x")), Events(None))

    def test_a_good_end_says_nothing(self) -> None:
        reads, writes = os.pipe()
        with os.fdopen(reads, "rb") as pipe:
            assert _ended_well(self.session(), lambda: None, Events(writes))
            os.close(writes)
            assert pipe.read() == b""


def _raise_from(error: Exception, cause: Exception) -> NoReturn:
    raise error from cause
