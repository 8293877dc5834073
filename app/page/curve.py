"""Memory against context: what is needed at some forty lengths, and what the common cards leave to PyTorch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import NamedTuple

from app.page.words import gpu_name
from ctxplan import Planner
from ctxplan.models import ModelFacts
from estimator import Estimate, Job, MaxContext
from estimator.errors import CtxplanError
from estimator.estimate import Verdict
from estimator.job import MAX_TOKENS

COMMON_CARDS = (
    "T4-16GB",
    "RTX-4090-24GB",
    "RTX-5090-32GB",
    "A100-40GB",
    "L40S-48GB",
    "A100-80GB",
    "RTX-PRO-6000-Blackwell-96GB",
    "H200-141GB",
    "B200-180GB",
)
"""One of each size that is easy to rent or to own."""

STEPS = 40
SHORTEST_AXIS = 4096
SAME_SIZE = 0.03
"""Cards within this share of the chosen one's room are its own size, and get no line of their own."""


class Point(NamedTuple):
    """What one length needs, bytes."""

    tokens: int
    expected: int
    upper: int
    verdict: Verdict


class CardLine(NamedTuple):
    """What a card leaves to PyTorch, bytes."""

    gpu: str
    room_bytes: int
    chosen: bool


class Curve(NamedTuple):
    """The data of the picture; ``points`` ascend, and hold the job's own length. ``end``: tokens at the right edge."""

    points: tuple[Point, ...]
    cards: tuple[CardLine, ...]
    end: int


def curve_of(job: Job, estimate: Estimate, longest: MaxContext, planner: Planner, facts: ModelFacts) -> Curve:
    """Estimate the job at lengths from nothing to beyond what its card can hold; each as ``max_seq_length``."""
    length = estimate.job.sequence_length or estimate.job.max_seq_length
    end = round_up(max(1.15 * min(longest.expected, MAX_TOKENS // 2), 1.3 * length, SHORTEST_AXIS))
    lengths = {max(1, end * step // STEPS) for step in range(STEPS + 1)} | {length}
    lengths |= {n for n in (longest.safe, longest.expected) if 0 < n <= end}
    points = tuple(_points(job, sorted(lengths), planner, facts))
    return Curve(points, _cards(job, estimate, planner, facts), end)


def round_up(value: float) -> int:
    """The next number of two digits and zeros, even in the second digit."""
    power = 10 ** max(0, math.floor(math.log10(value)) - 1)
    return int(math.ceil(value / power / 2) * 2 * power)


def _points(job: Job, lengths: Iterable[int], planner: Planner, facts: ModelFacts) -> Iterable[Point]:
    for length in lengths:
        try:
            found = planner.estimate(replace(job, max_seq_length=length, sequence_length=None), facts)
        except CtxplanError:
            continue  # a length that the stack refuses has no place on the curve; the job's own is answered already
        yield Point(length, found.needed_bytes.expected, found.needed_bytes.upper, found.verdict)


def _cards(job: Job, estimate: Estimate, planner: Planner, facts: ModelFacts) -> tuple[CardLine, ...]:
    chosen = CardLine(gpu_name(estimate.job), estimate.room_bytes, True)
    lines = [chosen]
    for gpu in COMMON_CARDS:
        try:
            room = planner.estimate(replace(job, gpu=gpu), facts).room_bytes
        except CtxplanError:
            continue  # the card cannot run this job at all, FP8 on an old one say
        if abs(room - chosen.room_bytes) > SAME_SIZE * chosen.room_bytes:
            lines.append(CardLine(gpu, room, False))
    return tuple(sorted(lines, key=lambda line: line.room_bytes))
