"""Where the curve's parts lie in its picture: x in percent of the width, so that text keeps its size on every screen,
y in pixels from the top; lines and areas in a thousandth of either."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from app.page.curve import CardLine, Curve, Point
from app.page.words import GIB
from estimator import MaxContext

HEIGHT = 320
"""Pixels of the plot, without the line of numbers below it."""

HEADROOM = 1.25
LABEL_GAP = 16
"""Pixels from one name to the next: a line of text."""
NAME_GAP = 12
"""Pixels from a dot to the top of its name, and from its name to an edge of the plot."""
ROOM_BESIDE = 65
"""Percent of the width up to where a dot's name has room on its right."""
LONGEST_NAME_SHARE = 45
"""Percent of the width that a dot's name takes on a phone."""
LONGEST_NAME, LONGEST_BRIEF = 27, 13
"""Characters of a name for which there is room beside the plot, and on a phone."""

TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class Tick(NamedTuple):
    """A round number on an axis, and where it is."""

    value: int
    at: float


class Line(NamedTuple):
    """A card's line. ``label_y``: the middle of its name, which lies beside the plot where the names have room.

    Attributes:
        name, brief: what it is called there, and on a phone.
    """

    card: CardLine
    y: float
    label_y: float
    name: str
    brief: str


class Zone(NamedTuple):
    """Lengths of one verdict that is not ``fits``."""

    key: str
    x: float
    width: float


class Mark(NamedTuple):
    """A length on the curve, and where it is."""

    at: float
    y: float
    point: Point


class Name(NamedTuple):
    """Where a dot's name begins or ends: the base line, the distance from the dot, and SVG's ``text-anchor``.

    Attributes:
        is_far: a line leads to it.
    """

    y: float
    dx: int
    anchor: str
    is_far: bool = False


class Drawing(NamedTuple):
    """Everything that the template draws."""

    height: int
    band: str
    line: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    lines: tuple[Line, ...]
    zones: tuple[Zone, ...]
    marks: tuple[Mark, ...]
    job: Mark
    job_name: Name
    safe: float | None


class _Scale(NamedTuple):
    end: int
    top: float

    def x(self, tokens: float) -> float:
        return round(100 * tokens / self.end, 3)

    def y(self, size_bytes: float) -> float:
        return round(HEIGHT * (1 - size_bytes / self.top), 2)

    def path(self, points: list[tuple[int, int]]) -> str:
        return " ".join(f"{1000 * n / self.end:.2f},{1000 * (1 - size / self.top):.2f}" for n, size in points)


def draw(curve: Curve, longest: MaxContext, length: int) -> Drawing:
    """Lay out the curve, the job's own length marked in it."""
    room = next(card.room_bytes for card in curve.cards if card.chosen)
    most = max(point.upper for point in curve.points)
    scale = _Scale(curve.end, HEADROOM * max(room, min(most, 4 * room)))
    shown = [point for point in curve.points if point.upper <= scale.top]
    upper = [(point.tokens, point.upper) for point in shown]
    expected = [(point.tokens, point.expected) for point in shown]
    marks = tuple(Mark(scale.x(one.tokens), scale.y(one.expected), one) for one in shown or curve.points[:1])
    here = min(marks, key=lambda mark: abs(mark.point.tokens - length))
    return Drawing(
        height=HEIGHT,
        band=scale.path(upper + expected[::-1]),
        line=scale.path(expected),
        x_ticks=_x_ticks(scale),
        y_ticks=_y_ticks(scale),
        lines=_lines(curve, scale),
        zones=_zones(longest, scale),
        marks=marks,
        job=here,
        job_name=_name(here, marks),
        safe=scale.x(longest.safe) if longest.safe and longest.safe <= curve.end else None,
    )


def _x_ticks(scale: _Scale) -> tuple[Tick, ...]:
    step = _step(scale.end / 5)
    return tuple(Tick(value, scale.x(value)) for value in range(0, scale.end + 1, step))


def _step(about: float) -> int:
    power = 10 ** math.floor(math.log10(about))
    return int(next(size * power for size in (1, 2, 5, 10) if size * power >= about * 0.95))


def _y_ticks(scale: _Scale) -> tuple[Tick, ...]:
    most = scale.top / GIB
    step = next((size for size in TICKS if most / size <= 6), 10_000)
    return tuple(Tick(value, scale.y(value * GIB)) for value in range(step, int(most) + 1, step))


def _lines(curve: Curve, scale: _Scale) -> tuple[Line, ...]:
    """The cards whose line is in the picture, from the top; each with its name."""
    inside = sorted((card for card in curve.cards if card.room_bytes < scale.top), key=lambda card: -card.room_bytes)
    places = [scale.y(card.room_bytes) for card in inside]
    labels = spread(places, gap=LABEL_GAP, first=LABEL_GAP / 2, last=HEIGHT - LABEL_GAP / 2)
    return tuple(
        Line(card, y, label_y, _cut(card.gpu, LONGEST_NAME), _cut(_brief(card.gpu), LONGEST_BRIEF))
        for card, y, label_y in zip(inside, places, labels, strict=True)
    )


def spread(places: Sequence[float], *, gap: float, first: float, last: float) -> list[float]:
    """Move ascending places as little as keeps them ``gap`` apart and between ``first`` and ``last``.

    Where there is no room for all of them, they stay ``gap`` apart and run beyond ``last``. The squares of the moves
    are the least: places that are too near one another become a block around their middle (isotonic regression).
    """
    blocks: list[tuple[float, int]] = []
    for number, place in enumerate(places):
        middle, many = place - number * gap, 1
        while blocks and blocks[-1][0] > middle:
            before, of = blocks.pop()
            middle, many = (before * of + middle * many) / (of + many), of + many
        blocks.append((middle, many))
    moved = [middle for middle, many in blocks for _ in range(many)]
    most = last - (len(moved) - 1) * gap
    return [round(max(first, min(middle, most)) + number * gap, 2) for number, middle in enumerate(moved)]


def _brief(gpu: str) -> str:
    """A card's name without what its number says already."""
    return gpu.replace("RTX-", "").replace("-Blackwell", "")


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _name(dot: Mark, marks: Sequence[Mark]) -> Name:
    """The curve rises: to the right of a dot there is room below it, and above it to the left. Just over the axis
    there is none but above all of the curve that the name stands over."""
    above, below = dot.y - NAME_GAP, dot.y + 2 * NAME_GAP
    if dot.at > ROOM_BESIDE:
        return Name(round(above if above >= 2 * LABEL_GAP else below, 2), -6, "end")
    if below <= HEIGHT - NAME_GAP:
        return Name(round(below, 2), 6, "start")
    top = min(mark.y for mark in marks if dot.at <= mark.at <= dot.at + LONGEST_NAME_SHARE)
    return Name(round(max(top - NAME_GAP, 2 * LABEL_GAP), 2), 6, "start", is_far=True)


def _zones(longest: MaxContext, scale: _Scale) -> tuple[Zone, ...]:
    ranges = [("short", longest.expected, scale.end), ("unsure", longest.safe, longest.expected)]
    ranges += [("unsure", first, last + 1) for first, last in longest.not_safe]
    ranges += [("short", first, last + 1) for first, last in longest.does_not_fit]
    return tuple(
        Zone(key, scale.x(first), round(scale.x(min(last, scale.end)) - scale.x(first), 3))
        for key, first, last in ranges
        if first < min(last, scale.end)
    )
