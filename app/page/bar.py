"""The stacked bar of where the bytes go: each segment's place on the card, in percent of the bar's width."""

from __future__ import annotations

from typing import NamedTuple

from app.page.beyond import beyond
from app.page.terms import GroupedTerms, grouped
from app.page.words import human
from estimator import Estimate
from estimator.calibration.bound import Evidence

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
    """The bar. ``groups``: the tensors; ``beyond``: what is needed beside them. ``room``: where the card ends, percent.
    ``over_bytes``: what is needed beyond it in the bound, or 0."""

    segments: tuple[Segment, ...]
    groups: tuple[GroupedTerms, ...]
    beyond: tuple[GroupedTerms, ...]
    room: float
    free_bytes: int
    over_bytes: int


def bar_of(estimate: Estimate, evidence: Evidence) -> Bar:
    """Lay out the terms of the peak, then the pages that stay half used, the margin of the bound, and what is left."""
    room, needed = estimate.room_bytes, estimate.needed_bytes
    groups, others = grouped(estimate.terms), beyond(estimate, evidence)
    free = max(0, room - needed.upper)
    parts = [(one.group.key, human(term.name), term.bytes) for one in groups for term in one.terms]
    parts += [(one.group.key, one.group.title, one.bytes) for one in others]
    parts.append(("free", "Free", free))
    scale = 100 / (max(room, needed.upper) * BEYOND)
    segments, before = [], 0
    for key, title, size in parts:
        if size > 0:
            segments.append(Segment(key, title, size, round(before * scale, 3), round(size * scale, 3)))
            before += size
    return Bar(
        segments=tuple(segments),
        groups=groups,
        beyond=others,
        room=round(room * scale, 3),
        free_bytes=free,
        over_bytes=max(0, needed.upper - room),
    )
