"""Holds a card's memory back, so that a large card stands in for a smaller one.

``python -m probes.ballast CAP_BYTES [IDLE_FREE_BYTES]`` takes plain device memory through the CUDA driver until the
free memory is what an idle card of CAP_BYTES would have, prints ``{"held_bytes", "free_bytes", "total_bytes", "pid"}``
as one JSON line, and holds it until its standard input ends. Unsloth and torch read the free memory from the driver,
so they decide as on the small card; what reads anything else is in `NOT_EMULATED`.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from probes.environment import python_path
from probes.errors import ProbeUnavailable
from probes.nvml import Card

NOT_EMULATED = (
    "rules that read the card's total memory (Unsloth's loss tiling on cards up to 24.5 GiB, fractions of the total)",
    "rules that read the compute capability or the number of multiprocessors",
)
CHUNK_BYTES, GRANULE_BYTES = 2**30, 2**21
START_SECONDS = 60.0
PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Ballast:
    """What is held. ``held_bytes`` has the ballast's own context in it."""

    cap_bytes: int
    held_bytes: int
    process: subprocess.Popen[bytes]

    @property
    def holds(self) -> bool:
        return self.process.poll() is None

    def to_json(self) -> dict[str, Any]:
        """As `probes.measurement.Cap`."""
        return {
            "total_bytes": self.cap_bytes,
            "ballast_bytes": self.held_bytes,
            "not_emulated": list(NOT_EMULATED),
        }


@contextmanager
def hold(cap_bytes: int, card: Card) -> Iterator[Ballast]:
    """Hold the card down to ``cap_bytes`` while the block runs; the ballast ends with this process, however it ends.

    Raises:
        ProbeUnavailable: the card is not larger than the cap, or its memory cannot be taken.
    """
    if cap_bytes >= card.total_bytes:
        raise ProbeUnavailable(f"{card.name} has {card.total_bytes} bytes, no more than the cap of {cap_bytes}")
    process = subprocess.Popen(
        [sys.executable, "-m", "probes.ballast", str(cap_bytes), str(card.free_bytes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": python_path(os.environ), "CUDA_VISIBLE_DEVICES": card.uuid},
        start_new_session=True,
    )
    try:
        yield Ballast(cap_bytes=cap_bytes, held_bytes=_held_bytes(process), process=process)
    finally:
        _end(process)


def _held_bytes(process: subprocess.Popen[bytes]) -> int:
    assert process.stdout is not None  # noqa: S101 -- it is a pipe
    ready, _, _ = select.select([process.stdout], [], [], START_SECONDS)
    line = process.stdout.readline() if ready else b""
    try:
        return int(json.loads(line)["held_bytes"])
    except (ValueError, KeyError, TypeError):
        process.kill()
        said = (line + (process.stdout.read() if ready else b"")).decode(errors="replace").strip()
        raise ProbeUnavailable(f"the ballast cannot be held: {said[-500:] or 'it does not start'}") from None


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None and process.stdout is not None  # noqa: S101, PT018 -- they are pipes
    with suppress(OSError):
        process.stdin.close()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        process.stdout.close()


def main(cap_bytes: int, idle_free_bytes: int | None) -> None:
    """In the ballast's own process: take the memory, say so, and wait."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    cuda = _Cuda()
    before, total = cuda.memory()
    # What an idle driver takes of the total is taken on a small card too. Its context excepted, this process is
    # the first on the card.
    overhead = max(0, total - idle_free_bytes) if idle_free_bytes is not None else 0
    target = cap_bytes - overhead
    if before < target:
        sys.exit(f"{before} bytes are free, fewer than the {target} that a card of {cap_bytes} leaves")
    free = cuda.take(before - target)
    held = total - overhead - free
    line = {"held_bytes": held, "free_bytes": free, "total_bytes": total, "pid": os.getpid()}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()
    sys.stdin.buffer.read()


class _Cuda:
    """The few calls of the driver API that are needed, on the first visible device."""

    def __init__(self) -> None:
        try:
            self._driver = ctypes.CDLL("libcuda.so.1")
        except OSError as error:
            sys.exit(f"no CUDA driver: {error}")
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._call("cuInit", ctypes.c_uint(0))
        self._call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(0))
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self._call("cuCtxSetCurrent", context)

    def memory(self) -> tuple[int, int]:
        """Bytes free and in all."""
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        self._call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def take(self, wanted_bytes: int) -> int:
        """Allocate as much, to the driver's granule. Returns what is free then."""
        target = self.memory()[0] - wanted_bytes
        while (rest := self.memory()[0] - target) >= GRANULE_BYTES:
            size = min(rest, CHUNK_BYTES) // GRANULE_BYTES * GRANULE_BYTES
            address = ctypes.c_uint64()
            self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(size))
        return self.memory()[0]

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._driver, name)(*arguments)
        if code != 0:
            sys.exit(f"{name} failed with CUDA error {code}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
