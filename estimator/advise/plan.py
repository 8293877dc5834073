"""What to change in a job: proposals that make it fit, or that use the room that it leaves, by their price.

A job that does not certainly fit gets the cheapest changes with which it does, those with which it does for a longer
context, each single change that is enough, and the smallest other card. A job that fits gets a longer context, as it
is and with changes, and a larger batch. No proposal is dominated: none has another beside it that is no dearer on any
scale and as good or better.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from estimator.advise.answer import Advice, Goal, Proposal, Standing
from estimator.advise.bench import AS_ASKED, Bench, Choice, longest_safe, simulated
from estimator.advise.code import code_lines
from estimator.advise.options import Option, knobs_of, larger_cards
from estimator.advise.prices import FREE, Paid, Price, longer_context
from estimator.advise.room import batch_options
from estimator.advise.search import Scope, cheap_scope, cheapest, useful_scope
from estimator.answer import Outcome, Prepared, prepare
from estimator.architecture import Architecture
from estimator.calibration.document import STRUCTURAL, Calibration
from estimator.job import MAX_TOKENS, Job
from estimator.resolve import Trainer
from estimator.rope import describe_rope
from estimator.solve import running_room

MOST_PROPOSALS = 8
MOST_ASKED = 50
"""Proposals that a caller may ask for."""

LONGER = 1.1
"""A context that is not a tenth longer is not worth a dearer change."""

NEARLY = 0.97
"""Of the longest context that any change reaches: a little below it, changes that hardly matter can be left out."""

MOST_SINGLE = 4
"""Single changes that are looked into, cheapest first: each costs the search for its longest context."""

GOALS: tuple[Goal, ...] = ("fit", "context", "batch")


def advise(
    job: Job,
    architecture: Architecture,
    calibration: Calibration = STRUCTURAL,
    *,
    trainer: Trainer | None = None,
    limit: int = MOST_PROPOSALS,
) -> Advice:
    """What to change so that a job fits, or to use the room that it leaves.

    Args:
        job: as written. architecture, calibration: as `estimator.estimate` has them.
        trainer: what runs the steps. None estimates as `estimator.estimate` does, and prices the changes for a bare
            loop where the job says ``padding_free: false`` or runs plain transformers, else for ``SFTTrainer``.
        limit: at most so many proposals.

    Raises:
        CtxplanError: as `estimator.estimate`.
    """
    now = prepare(job, architecture, calibration, trainer=trainer)
    priced_for = trainer or ("loop" if job.framework == "transformers" or job.padding_free is False else "sft")
    bench = Bench(job, architecture, calibration, trainer, knobs_of(job, now.run, priced_for))
    adviser = Adviser(bench, now, priced_for)
    proposals = adviser.to_use_the_room() if adviser.standing.verdict == "fits" else adviser.to_fit()
    return Advice(
        standing=adviser.standing,
        proposals=tuple(sorted(undominated(proposals), key=_rank)[:limit]),
        trainer=priced_for,
        simulated=bench.simulated,
        assumptions=(
            *now.run.assumptions,
            f"changes are priced for {'a bare loop' if priced_for == 'loop' else 'SFTTrainer'}",
            "speed and quality of a change are ranked, not predicted",
        ),
        job=now.run.job,
    )


class Adviser:
    """One job and its bench: makes the proposals."""

    def __init__(self, bench: Bench, now: Prepared, trainer: Trainer) -> None:
        self._bench = bench
        self._now = now
        self._trainer = trainer
        self.standing = _standing(simulated(now), bench.longest(bench.as_is))

    def to_fit(self) -> list[Proposal]:
        """Changes with which the job fits, or may fit where none certainly does."""
        found = [*self._fitting(self._bench), *self._other_card()]
        if found or self.standing.verdict == "uncertain":
            return found
        return self._may_fit() or self._changed_on_another_card()

    def to_use_the_room(self) -> list[Proposal]:
        """A longer context, as the job is and with changes, and a larger batch."""
        batches = (self._proposal("batch", [option]) for option in batch_options(self._bench, self._now.run))
        return [*self._longer(), *(batch for batch in batches if batch)]

    def _fitting(self, bench: Bench) -> Iterator[Proposal]:
        for choice in _looked_into(bench, AS_ASKED):
            yield self._chosen("fit", bench, choice)

    def _longer(self) -> Iterator[Proposal]:
        bench, now = self._bench, self._bench.longest(self._bench.as_is)
        asked = self._now.run.job.max_seq_length
        native = self._now.run.architecture.rope.native_length
        if asked < native < now:
            yield self._chosen("context", bench, bench.as_is, length=native)
        if now > asked:
            yield self._chosen("context", bench, bench.as_is)
        target = int(max(now, 1) * LONGER) + 1
        if target > MAX_TOKENS:
            return
        for choice in _looked_into(bench, target):
            if bench.longest(choice) > asked:
                yield self._chosen("context", bench, choice)

    def _other_card(self) -> Iterator[Proposal]:
        """The smallest larger card that the job fits as it is."""
        for card in larger_cards(self._now.run).options:
            prepared = self._bench.prepare(card.changes)
            if prepared is not None and simulated(prepared).verdict == "fits":
                yield self._described("fit", [card], prepared, longest_safe(prepared))
                return

    def _may_fit(self) -> list[Proposal]:
        """The cheapest changes that are expected to fit."""
        bench = self._bench.with_room(running_room)
        scope = useful_scope(bench)
        choices = {cheapest(bench, cheap_scope(bench, scope)), cheapest(bench, scope)}
        return [self._chosen("fit", bench, choice) for choice in sorted(c for c in choices if c)]

    def _changed_on_another_card(self) -> list[Proposal]:
        """The cheapest changes on the smallest card where the strongest of them make the job fit."""
        for card in larger_cards(self._now.run).options:
            bench = self._bench.on(card.changes["gpu"])
            # Of the card itself: what helps a card that is short of its own memory is not what helps a short host.
            scope = useful_scope(bench)
            choices = {cheapest(bench, cheap_scope(bench, scope)), cheapest(bench, scope)}
            found = [self._proposal("fit", [*bench.options(c), card]) for c in sorted(c for c in choices if c)]
            if found:
                return [proposal for proposal in found if proposal]
        return []

    def _chosen(self, goal: Goal, bench: Bench, choice: Choice, *, length: int | None = None) -> Proposal:
        """The proposal of a choice that the bench has simulated; of a context, at the longest one or at a length."""
        longest = bench.longest(choice)
        length = length or longest
        prepared = bench.prepared(choice)
        assert prepared is not None  # noqa: S101 - a choice with room was prepared
        options = bench.options(choice)
        if goal == "context":
            options.insert(0, Option(self._length(length), *self._longer_context(length, prepared)))
            changed = bench.prepare({**bench.changes(choice), **self._length(length)})
            assert changed is not None  # noqa: S101 - a length is refused by no job
            prepared = changed
        return self._described(goal, options, prepared, longest)

    def _longer_context(self, longest: int, prepared: Prepared) -> Paid:
        run = prepared.run
        rope = run.architecture.rope
        told = describe_rope(rope, longest, extends=run.own_forward)
        return longer_context(longest, native=rope.native_length, factor=told["factor"])

    def _length(self, longest: int) -> dict[str, Any]:
        asked = self._bench.job
        cut = {} if asked.sequence_length is None else {"sequence_length": None}
        return {"max_seq_length": longest, **cut}

    def _proposal(self, goal: Goal, options: list[Option]) -> Proposal | None:
        """The proposal of options that are not all of the bench's; None where the stack refuses them."""
        changes = {key: value for option in options for key, value in option.changes.items()}
        prepared = self._bench.prepare(changes)
        return self._described(goal, options, prepared, longest_safe(prepared)) if prepared else None

    def _described(self, goal: Goal, options: list[Option], prepared: Prepared, longest: int) -> Proposal:
        changes = {key: value for option in options for key, value in option.changes.items()}
        price = FREE
        for option in options:
            price = price.plus(option.price)
        standing = _standing(simulated(prepared), longest)
        return Proposal(
            goal=goal,
            changes=changes,
            options=tuple(options),
            price=price,
            standing=standing,
            host_ram_bytes=standing.host.total_bytes - self.standing.host.total_bytes,
            code=code_lines(changes, prepared.run.job, self._trainer),
            job=prepared.run.job,
        )


def _looked_into(bench: Bench, length: int) -> list[Choice]:
    """Choices that fit at a length and are worth the search for their longest context: none has another beside it that
    is no dearer on any scale and leaves more room."""
    scope = useful_scope(bench, length)
    ladders = (*_ladder(bench, cheap_scope(bench, scope), length), *_ladder(bench, scope, length))
    choices = {choice: bench.price(choice) for choice in (*ladders, *_single_steps(bench, scope, length))}

    def beaten(choice: Choice) -> bool:
        room = bench.room(choice, length)
        return any(
            price.covers(choices[choice]) and bench.room(other, length) > room for other, price in choices.items()
        )

    return [choice for choice in choices if not beaten(choice)]


def _ladder(bench: Bench, scope: Scope, length: int = AS_ASKED) -> list[Choice]:
    """The cheapest choice that fits at a length, and the cheapest for contexts halfway to the longest, and there."""
    first = cheapest(bench, scope, length)
    if first is None:
        return []
    choices = [first]
    reached, most = bench.longest(first), bench.longest(scope.strongest)
    for target in (int((reached * most) ** 0.5), int(most * NEARLY)):
        if target > reached * LONGER:
            choice = cheapest(bench, scope, target)
            if choice is not None:
                choices.append(choice)
                reached = bench.longest(choice)
    return choices


def _single_steps(bench: Bench, scope: Scope, length: int) -> list[Choice]:
    """The cheapest options that are enough by themselves, of each knob those that no cheaper one of it covers."""
    found: list[Choice] = []
    for index, (knob, numbers) in enumerate(zip(bench.knobs, scope.allowed, strict=True)):
        enough: list[Price] = []
        for number in numbers[1:]:
            choice = (*bench.as_is[:index], number, *bench.as_is[index + 1 :])
            price = knob.options[number - 1].price
            if bench.room(choice, length) > 0 and not any(cheaper.covers(price) for cheaper in enough):
                enough.append(price)
                found.append(choice)
    return sorted(found, key=lambda choice: (bench.price(choice).order, choice))[:MOST_SINGLE]


def undominated(proposals: Iterable[Proposal]) -> list[Proposal]:
    """Those that no other of the same goal dominates; of equals the first."""
    kept: list[Proposal] = []
    for proposal in sorted(proposals, key=_rank):
        if not any(dominates(other, proposal) for other in kept):
            kept = [other for other in kept if not dominates(proposal, other)]
            kept.append(proposal)
    return kept


def dominates(one: Proposal, other: Proposal) -> bool:
    """Whether a proposal is no dearer on any scale than another of its goal, and as good in everything it is for."""
    if one.goal != other.goal or not one.price.covers(other.price):
        return False
    if one.standing.verdict != "fits" and other.standing.verdict == "fits":
        return False
    return all(mine >= theirs for mine, theirs in zip(_merits(one), _merits(other), strict=True))


def _merits(proposal: Proposal) -> tuple[int, ...]:
    """What a goal wants more of. A longer context and a larger batch are there to fill the card, so their peaks are no
    merit."""
    if proposal.goal == "context":
        return (proposal.job.max_seq_length,)
    if proposal.goal == "batch":
        return (proposal.job.per_device_train_batch_size,)
    return -proposal.standing.peak_allocated_bytes.expected, proposal.standing.longest


def _rank(proposal: Proposal) -> tuple[int, ...]:
    """By price; then what it is for, then the better; the last numbers only make the order certain."""
    return (proposal.price.order, GOALS.index(proposal.goal), *(-merit for merit in _merits(proposal)))


def _standing(outcome: Outcome, longest: int) -> Standing:
    return Standing(
        outcome.allocated, outcome.host, outcome.verdict, outcome.limited_by, longest, inside=outcome.evidence.inside
    )
