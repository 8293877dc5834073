"""The largest tensors alive at the peak, by the code that allocated them, from the history of torch's allocator.

Source: torch/cuda/memory.py ``_record_memory_history`` and ``_snapshot``. The history starts before the first tensor,
so that every block has its stack.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import Any

MAX_EVENTS = 20_000_000
MAX_FRAMES = 12
MAX_ROWS = 40


def record_history() -> None:
    """Keep every allocation with its Python stack, from now on."""
    import torch

    torch.cuda.memory._record_memory_history("all", context="alloc", stacks="python", max_entries=MAX_EVENTS)


def events_so_far() -> int:
    """How many events the history has: where a step begins."""
    return len(_trace())


def live_at_peak(first: int) -> list[dict[str, Any]]:
    """The blocks alive at the largest sum that came after event ``first``, summed by stack, largest first."""
    return live_tensors(_trace(), first)


def live_tensors(trace: Iterable[Mapping[str, Any]], first: int) -> list[dict[str, Any]]:
    """The same of any history of {"action", "addr", "size", "frames"}; sizes in bytes."""
    events = list(trace)
    peak = _peak_event(events, first)
    live: dict[int, Mapping[str, Any]] = {}
    for event in events[: peak + 1]:
        if event["action"] == "alloc":
            live[event["addr"]] = event
        elif event["action"] == "free_requested":
            live.pop(event["addr"], None)
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for event in live.values():
        stack = _stack(event.get("frames") or ())
        row = rows.setdefault(stack, {"bytes": 0, "blocks": 0, "stack": stack})
        row["bytes"] += event["size"]
        row["blocks"] += 1
    return sorted(rows.values(), key=lambda row: -row["bytes"])[:MAX_ROWS]


def _peak_event(events: list[Mapping[str, Any]], first: int) -> int:
    held = most = 0
    peak = first
    sizes: dict[int, int] = {}
    for number, event in enumerate(events):
        if event["action"] == "alloc":
            sizes[event["addr"]] = event["size"]
            held += event["size"]
        elif event["action"] == "free_requested":
            held -= sizes.pop(event["addr"], 0)
        if number >= first and held > most:
            most, peak = held, number
    return peak


def _stack(frames: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Innermost first, without the path that is this machine's own."""
    lines = (f"{_short(str(f['filename']))}:{f['line']} {f['name']}" for f in frames if f.get("filename"))
    return tuple(line for _, line in zip(range(MAX_FRAMES), lines, strict=False))


def _short(filename: str) -> str:
    """The file inside the folder that Python imports it from."""
    roots = [root for root in sys.path if root and filename.startswith(root + "/")]
    return filename[len(max(roots, key=len)) + 1 :] if roots else filename.rpartition("/")[2]


def _trace() -> list[Any]:
    import torch

    traces: list[list[Any]] = torch.cuda.memory._snapshot()["device_traces"]
    return max(traces, key=len, default=[])
