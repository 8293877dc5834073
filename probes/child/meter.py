"""Reads what torch and the driver count; on the CPU it reads nothing."""

from __future__ import annotations

import math
import time
from typing import Any

Peak = dict[str, int | None]
PARTS = ("forward", "backward", "optimizer")


class Meter:
    """Memory counters of one process on one device.

    Attributes:
        cuda: whether there is a device; without one every byte is None.
        ballast_bytes: what another process holds on the device on purpose.
        last_refusal: what the allocator was last asked for in this part of the run and could not give (`OutOfMemory`
            of the schema).
    """

    def __init__(self, *, ballast_bytes: int = 0) -> None:
        import torch

        self._torch = torch
        self.cuda: bool = torch.cuda.is_available()
        self.ballast_bytes = ballast_bytes
        self.last_refusal: dict[str, int] | None = None
        self.context_bytes = self._open() if self.cuda else None
        if self.cuda:
            torch._C._cuda_attach_out_of_memory_observer(self._refused)

    def reset(self) -> None:
        """Start a new part of the run: peaks count from here."""
        # What was refused in an earlier part was given in the end, or was done without.
        self.last_refusal = None
        if self.cuda:
            self._torch.cuda.reset_peak_memory_stats()

    def peak(self) -> Peak:
        """The largest since `reset`."""
        if not self.cuda:
            return {"allocated_bytes": None, "reserved_bytes": None}
        cuda = self._torch.cuda
        return {"allocated_bytes": cuda.max_memory_allocated(), "reserved_bytes": cuda.max_memory_reserved()}

    def allocated(self) -> int | None:
        return int(self._torch.cuda.memory_allocated()) if self.cuda else None

    def reserved(self) -> int | None:
        return int(self._torch.cuda.memory_reserved()) if self.cuda else None

    def device_used(self) -> int | None:
        """What the driver counts, the ballast apart."""
        if not self.cuda:
            return None
        free, total = self._torch.cuda.mem_get_info()
        return int(total - free) - self.ballast_bytes

    def synchronise(self) -> float:
        """Wait for the device; seconds of a clock that only goes forward."""
        if self.cuda:
            self._torch.cuda.synchronize()
        return time.perf_counter()

    def allocator(self) -> dict[str, int] | None:
        if not self.cuda:
            return None
        stats = self._torch.cuda.memory_stats()
        return {"retries": stats["num_alloc_retries"], "out_of_memory": stats["num_ooms"]}

    def _open(self) -> int:
        """Create the context, and count it before the first tensor."""
        self._torch.cuda.init()
        self._torch.cuda.synchronize()
        used = self.device_used()
        return (used or 0) - int(self._torch.cuda.memory_reserved())

    def _refused(self, device: int, tried: int, *_: Any) -> None:
        cuda = self._torch.cuda
        self.last_refusal = {
            "tried_bytes": tried,
            "allocated_bytes": int(cuda.memory_allocated(device)),
            "reserved_bytes": int(cuda.memory_reserved(device)),
        }


def largest(first: Peak | None, second: Peak) -> Peak:
    """The larger of two peaks, each number by itself; None where either is unknown."""
    if first is None:
        return second
    return {key: None if value is None else max(value, first[key] or 0) for key, value in second.items()}


class Recorder:
    """Follows one run of steps: tells the meter where a part ends, and keeps each step.

    The parts of a step, in the order of calls: `step_begins`, then for each micro-batch `forward_ends` and
    `backward_ends`, then `step_ends`. The optimizer's part holds everything from the last backward on.

    Attributes:
        optimizer: the class that steps, with its module, as whoever trains found it.

    Args:
        tell: called with (phase, step, allocated bytes) as parts begin, for whoever watches.
    """

    def __init__(self, meter: Meter, tell: Any) -> None:
        self.meter = meter
        self.steps: list[dict[str, Any]] = []
        self.phase = "forward"
        self.optimizer: str | None = None
        self._tell = tell
        self._parts: dict[str, Peak] = {}
        self._losses: list[Any] = []
        self._began = 0.0

    @property
    def number(self) -> int:
        """The step that runs, from 1."""
        return len(self.steps) + 1

    def step_begins(self) -> None:
        self._parts, self._losses = {}, []
        self._began = self.meter.synchronise()
        self._enter("forward")

    def micro_batch_begins(self) -> None:
        if self.phase != "forward":
            self._enter("forward")

    def forward_ends(self) -> None:
        self._leave()
        self._enter("backward")

    def backward_ends(self, loss: Any) -> None:
        self._losses.append(loss)
        self._leave()
        self._enter("optimizer")

    def steps_with(self, optimizer: Any) -> None:
        """Note the optimizer; accelerate wraps it in a class of its own."""
        inner = getattr(optimizer, "optimizer", optimizer)
        self.optimizer = f"{type(inner).__module__}.{type(inner).__qualname__}"

    def step_ends(self) -> None:
        self._leave()
        seconds = self.meter.synchronise() - self._began
        peaks = list(self._parts.values())
        loss = sum(float(value) for value in self._losses) if self._losses else math.nan
        self.steps.append(
            {
                **{name: self._parts.get(name) if self.meter.cuda else None for name in PARTS},
                "peak_allocated_bytes": _max(peak["allocated_bytes"] for peak in peaks),
                "peak_reserved_bytes": _max(peak["reserved_bytes"] for peak in peaks),
                "device_used_bytes": self.meter.device_used(),
                # JSON has no NaN: a loss that is not finite is null.
                "loss": loss if math.isfinite(loss) else None,
                "seconds": seconds,
            }
        )

    def _enter(self, phase: str) -> None:
        self.phase = phase
        self.meter.reset()
        self._tell(phase, self.number, self.meter.allocated())

    def _leave(self) -> None:
        self._parts[self.phase] = largest(self._parts.get(self.phase), self.meter.peak())


def _max(values: Any) -> int | None:
    known = [value for value in values if value is not None]
    return max(known) if known else None
