"""Where the curve's parts lie in its picture: x in percent of the width, so that text keeps its size on every screen,
y in pixels from the top; lines and areas in a thousandth of either."""

from __future__ import annotations

import math
from typing import NamedTuple

from app.page.curve import CardLine, Curve, Point
from app.page.words import GIB
from estimator import MaxContext

HEIGHT = 320
"""Pixels of the plot, without the line of numbers below it."""

HEADROOM = 1.25
LABEL_GAP = 18
"""Two labels nearer than so many pixels cannot both be read."""

TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)


class Tick(NamedTuple):
    """A round number on an axis, and where it is."""

    value: int
    at: float


class Line(NamedTuple):
    """A card's line. ``labelled``: whether its name has room."""

    card: CardLine
    y: float
    labelled: bool


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
    return Drawing(
        height=HEIGHT,
        band=scale.path(upper + expected[::-1]),
        line=scale.path(expected),
        x_ticks=_x_ticks(scale),
        y_ticks=_y_ticks(scale),
        lines=_lines(curve, scale),
        zones=_zones(longest, scale),
        marks=marks,
        job=min(marks, key=lambda mark: abs(mark.point.tokens - length)),
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
    """The cards whose line is in the picture; the chosen one has its name, the others where they do not collide."""
    inside = sorted((card for card in curve.cards if card.room_bytes < scale.top), key=lambda card: not card.chosen)
    taken: list[float] = []
    lines = []
    for card in inside:
        y = scale.y(card.room_bytes)
        free = y > LABEL_GAP and all(abs(y - other) >= LABEL_GAP for other in taken)
        taken += [y] if free else []
        lines.append(Line(card, y, free))
    return tuple(lines)


def _zones(longest: MaxContext, scale: _Scale) -> tuple[Zone, ...]:
    ranges = [("short", longest.expected, scale.end), ("unsure", longest.safe, longest.expected)]
    ranges += [("unsure", first, last + 1) for first, last in longest.not_safe]
    ranges += [("short", first, last + 1) for first, last in longest.does_not_fit]
    return tuple(
        Zone(key, scale.x(first), round(scale.x(min(last, scale.end)) - scale.x(first), 3))
        for key, first, last in ranges
        if first < min(last, scale.end)
    )
