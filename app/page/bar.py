"""The stacked bar of where the bytes go: each segment's place on the card, in percent of the bar's width."""

from __future__ import annotations

from typing import NamedTuple

from app.page.terms import GroupedTerms, grouped
from estimator import Estimate

BEYOND = 1.03
"""The bar is a little longer than the larger of what is needed and what the card leaves, so that its end shows."""


class Segment(NamedTuple):
    """A part of the bar. ``x``, ``width``: percent of its width. ``key``: its class; a group's, or what is no term."""

    key: str
    title: str
    bytes: int
    x: float
    width: float


class Bar(NamedTuple):
    """The bar. ``room``: where the card ends, percent. ``over_bytes``: what is needed beyond it in the bound, or 0."""

    segments: tuple[Segment, ...]
    groups: tuple[GroupedTerms, ...]
    room: float
    rounding_bytes: int
    margin_bytes: int
    free_bytes: int
    over_bytes: int


def bar_of(estimate: Estimate) -> Bar:
    """Lay out the terms of the peak, then what the allocator rounds, the margin of the bound, and what is left."""
    room, needed = estimate.room_bytes, estimate.needed_bytes
    allocated = estimate.peak_allocated_bytes.expected
    groups = grouped(estimate.terms)
    free = max(0, room - needed.upper)
    parts = [(one.group.key, term.name, term.bytes) for one in groups for term in one.terms]
    parts += [
        ("rounding", "what the allocator rounds up", needed.expected - allocated),
        ("margin", "the margin of the upper bound", needed.upper - needed.expected),
        ("free", "free", free),
    ]
    scale = 100 / (max(room, needed.upper) * BEYOND)
    segments, before = [], 0
    for key, title, size in parts:
        if size > 0:
            segments.append(Segment(key, title, size, round(before * scale, 3), round(size * scale, 3)))
            before += size
    return Bar(
        segments=tuple(segments),
        groups=groups,
        room=round(room * scale, 3),
        rounding_bytes=max(0, needed.expected - allocated),
        margin_bytes=needed.upper - needed.expected,
        free_bytes=free,
        over_bytes=max(0, needed.upper - room),
    )
