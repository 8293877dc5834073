"""The cheapest changes with which a job fits at some length.

Options of different knobs multiply to hundreds of thousands of jobs, and each costs a tenth of a millisecond. So the
search goes through them by price, cheapest first, and drops every beginning whose strongest completion does not fit:
the first job that it completes is the cheapest. Which option of a knob is the strongest is found once, by trial
beside the strongest of all others, and taken to be so beside any; an option that helps neither alone nor there is left
out. What is answered was estimated in any case: the shortcut can miss a cheaper job, never name one that does not fit.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import NamedTuple

from estimator.advise.bench import AS_ASKED, Bench, Choice

MOST_VISITED = 300
"""Beginnings that one search may look at; beyond, it answers with the strongest choice, which is known to fit."""


class Scope(NamedTuple):
    """Which options of each knob may be taken, by number, and the strongest choice among them.

    Attributes:
        allowed: for each knob the numbers of its options, cheapest first, with 0 for none of them.
    """

    allowed: tuple[tuple[int, ...], ...]
    strongest: Choice


def useful_scope(bench: Bench, length: int = AS_ASKED) -> Scope:
    """Every option that gives room at a length, alone or beside the strongest of the other knobs."""
    strongest = list(_dearest(bench, length))
    allowed = []
    for index, knob in enumerate(bench.knobs):
        numbers = range(len(knob.options) + 1)
        beside = [bench.room(_with(tuple(strongest), index, n), length) for n in numbers]
        strongest[index] = max(numbers, key=lambda n: (beside[n], -n))
        alone = bench.room(bench.as_is, length)
        allowed.append(
            tuple(
                n
                for n in numbers
                if not n or beside[n] > beside[0] or bench.room(_with(bench.as_is, index, n), length) > alone
            )
        )
    return Scope(tuple(allowed), tuple(strongest))


def cheap_scope(bench: Bench, scope: Scope) -> Scope:
    """The options that leave the result as it is: no quality is paid."""
    allowed = tuple(
        tuple(n for n in numbers if not n or not knob.options[n - 1].price.quality)
        for knob, numbers in zip(bench.knobs, scope.allowed, strict=True)
    )
    strongest = tuple(
        best if best in numbers else numbers[-1] for best, numbers in zip(scope.strongest, allowed, strict=True)
    )
    return Scope(allowed, strongest)


def cheapest(bench: Bench, scope: Scope, length: int = AS_ASKED) -> Choice | None:
    """The cheapest choice that fits at a length, None where not even the strongest does."""
    if bench.room(scope.strongest, length) <= 0:
        return None
    # Of equal prices the one that is further decided comes first, so that it is not held up by its like.
    heap: list[tuple[int, int, Choice]] = [(0, 0, ())]
    for _ in range(MOST_VISITED):
        order, _, begun = heappop(heap)
        if bench.room((*begun, *scope.strongest[len(begun) :]), length) <= 0:
            continue
        if len(begun) == len(bench.knobs):
            return begun
        for number in scope.allowed[len(begun)]:
            paid = bench.knobs[len(begun)].options[number - 1].price.order if number else 0
            heappush(heap, (order + paid, -len(begun) - 1, (*begun, number)))
    return scope.strongest


def _dearest(bench: Bench, length: int) -> Choice:
    """The dearest option of every knob, the first guess at the strongest choice."""
    choice = tuple(len(knob.options) for knob in bench.knobs)
    if bench.outcome(choice, length) is not None:
        return choice
    return bench.as_is


def _with(choice: Choice, index: int, number: int) -> Choice:
    return (*choice[:index], number, *choice[index + 1 :])
