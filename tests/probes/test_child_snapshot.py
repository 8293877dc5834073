"""The moment of the peak is found in the allocator's history, and what is alive then."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from probes.child.snapshot import MAX_ROWS, live_tensors


def alloc(addr: int, size: int, line: int = 1) -> dict[str, Any]:
    return {"action": "alloc", "addr": addr, "size": size, "frames": [{"filename": "a.py", "line": line, "name": "f"}]}


def free(addr: int) -> dict[str, Any]:
    return {"action": "free_requested", "addr": addr, "size": 0, "frames": []}


def held(trace: list[dict[str, Any]]) -> list[int]:
    """Bytes held after each event, counted anew for every one."""
    sums = []
    for end in range(1, len(trace) + 1):
        live: dict[int, int] = {}
        for event in trace[:end]:
            live.pop(event["addr"], None)
            if event["action"] == "alloc":
                live[event["addr"]] = event["size"]
        sums.append(sum(live.values()))
    return sums


@st.composite
def histories(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Blocks that come and go, at addresses that are used again."""
    trace: list[dict[str, Any]] = []
    live: set[int] = set()
    for number in range(draw(st.integers(1, 40))):
        addr = draw(st.integers(0, 5))
        trace.append(free(addr) if addr in live else alloc(addr, draw(st.integers(1, 1000)), number))
        live ^= {addr}
    return trace


@given(histories())
def test_what_is_alive_sums_to_the_largest_sum_that_any_moment_held(trace: list[dict[str, Any]]) -> None:
    assert sum(row["bytes"] for row in live_tensors(trace, 0)) == max(held(trace))


@given(histories(), st.data())
def test_a_larger_sum_before_the_step_does_not_count(trace: list[dict[str, Any]], data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(trace) - 1))
    found = sum(row["bytes"] for row in live_tensors(trace, first))
    assert found == max(held(trace)[first:])


def test_the_first_of_equal_sums_is_the_peak() -> None:
    rows = live_tensors([alloc(1, 10, 1), free(1), alloc(2, 10, 2)], 0)
    assert [row["stack"] for row in rows] == [("a.py:1 f",)]


@pytest.mark.parametrize("action", ["free_completed", "segment_alloc", "segment_free", "oom"])
def test_events_that_move_no_block_change_nothing(action: str) -> None:
    other = {"action": action, "addr": 1, "size": 10**9, "frames": []}
    assert live_tensors([alloc(1, 10), other, alloc(2, 5)], 0) == live_tensors([alloc(1, 10), alloc(2, 5)], 0)


def test_only_the_largest_rows_are_kept() -> None:
    rows = live_tensors([alloc(i, i + 1, i) for i in range(MAX_ROWS + 5)], 0)
    assert [row["bytes"] for row in rows] == list(range(MAX_ROWS + 5, 5, -1))
