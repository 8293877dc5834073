"""The recorder: what belongs to which part of a step."""

from __future__ import annotations

import math
from typing import Any

import pytest

pytest.importorskip("torch")

from probes.child.meter import Meter, Peak, Recorder, largest


class Counters(Meter):
    """A meter whose peaks are given: what a device would have counted between two calls."""

    def __init__(self, peaks: list[int]) -> None:
        self.cuda = True
        self.given = iter(peaks)

    def reset(self) -> None: ...

    def peak(self) -> dict[str, int | None]:
        value = next(self.given)
        return {"allocated_bytes": value, "reserved_bytes": value + 1000}

    def allocated(self) -> int:
        return 1

    def device_used(self) -> int:
        return 5000

    def synchronise(self) -> float:
        return 0.0


def test_each_part_keeps_the_largest_of_its_micro_batches() -> None:
    told: list[tuple[Any, ...]] = []
    recorder = Recorder(Counters([10, 30, 20, 25, 7]), lambda *what: told.append(what))
    recorder.step_begins()
    for loss in (1.0, 2.0):
        recorder.micro_batch_begins()
        recorder.forward_ends()
        recorder.backward_ends(loss)
    recorder.step_ends()
    (step,) = recorder.steps
    assert step["forward"]["allocated_bytes"] == 20
    assert step["backward"]["allocated_bytes"] == 30
    assert step["optimizer"]["allocated_bytes"] == 7
    assert (step["peak_allocated_bytes"], step["peak_reserved_bytes"]) == (30, 1030)
    assert step["loss"] == 3.0
    assert [phase for phase, *_ in told] == ["forward", "backward", "optimizer", "forward", "backward", "optimizer"]


def test_a_loss_that_is_not_finite_is_null() -> None:
    recorder = Recorder(Counters([1, 1, 1]), lambda *_: None)
    recorder.step_begins()
    recorder.micro_batch_begins()
    recorder.forward_ends()
    recorder.backward_ends(math.nan)
    recorder.step_ends()
    assert recorder.steps[0]["loss"] is None


def test_a_refusal_is_forgotten_where_the_next_part_of_the_run_begins() -> None:
    """Unsloth goes on with one staging buffer where the second was refused: a later error is not about that one."""
    meter = Meter()
    meter.last_refusal = {"tried_bytes": 2**31, "allocated_bytes": 0, "reserved_bytes": 0}
    recorder = Recorder(meter, lambda *_: None)
    recorder.step_begins()
    assert meter.last_refusal is None
    meter.last_refusal = {"tried_bytes": 2**30, "allocated_bytes": 0, "reserved_bytes": 0}
    recorder.forward_ends()
    assert meter.last_refusal is None


def test_the_larger_of_two_peaks_is_taken_number_by_number() -> None:
    first: Peak = {"allocated_bytes": 5, "reserved_bytes": 9}
    second: Peak = {"allocated_bytes": 7, "reserved_bytes": 8}
    assert largest(first, second) == {"allocated_bytes": 7, "reserved_bytes": 9}
    assert largest(None, second) == second
