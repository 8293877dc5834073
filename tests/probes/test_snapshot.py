"""Live tensors at the peak, from the allocator's history."""

from __future__ import annotations

import sys
from typing import Any

from probes.child.snapshot import live_tensors

FOLDER = next(path for path in sys.path if path.endswith("site-packages"))


def _alloc(addr: int, size: int, line: int) -> dict[str, Any]:
    frames = [{"filename": f"{FOLDER}/unsloth/kernels/fast_lora.py", "line": line, "name": "backward"}]
    return {"action": "alloc", "addr": addr, "size": size, "frames": frames}


def _free(addr: int) -> dict[str, Any]:
    return {"action": "free_requested", "addr": addr, "size": 0, "frames": []}


def test_the_rows_are_the_blocks_alive_at_the_largest_sum_and_sum_to_it() -> None:
    trace = [_alloc(1, 100, 10), _alloc(2, 50, 20), _free(2), _alloc(3, 70, 30), _alloc(4, 5, 30), _free(3), _free(4)]
    rows = live_tensors(trace, 0)
    assert [(row["bytes"], row["blocks"]) for row in rows] == [(100, 1), (75, 2)]
    assert rows[1]["stack"] == ("unsloth/kernels/fast_lora.py:30 backward",)


def test_only_a_peak_after_the_first_event_asked_for_counts() -> None:
    trace = [_alloc(1, 100, 10), _alloc(2, 500, 20), _free(2), _alloc(3, 7, 30)]
    assert sum(row["bytes"] for row in live_tensors(trace, 3)) == 107


def test_an_address_that_is_used_again_counts_once() -> None:
    trace = [_alloc(1, 100, 10), _free(1), _alloc(1, 30, 20), _alloc(2, 80, 30)]
    assert {row["bytes"] for row in live_tensors(trace, 2)} == {30, 80}
