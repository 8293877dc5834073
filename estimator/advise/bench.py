"""Jobs with changes, simulated: each choice once, at each length once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from estimator.advise.options import Changes, Knob, Option
from estimator.advise.prices import FREE, Price
from estimator.answer import Outcome, Prepared, outcome_at, prepare
from estimator.architecture import Architecture
from estimator.calibration.document import Calibration
from estimator.errors import CtxplanError
from estimator.job import Job
from estimator.parameters import with_layers
from estimator.resolve import Trainer
from estimator.solve import Room, Search, fitting_room

Choice = tuple[int, ...]
"""For each knob the number of its option, from 1; 0 leaves it as it is."""

AS_ASKED = 0
"""A length that stands for the job's own max_seq_length and sequence_length; any other is planned as both."""

REFUSED = -(2**62)
"""Room of a job that the stack refuses: less than any other's."""


class Bench:
    """One job, its knobs, and what was simulated of them.

    Args:
        job: as asked. knobs: what may be changed; the indices of a choice are theirs. room: what counts as fitting.
    """

    def __init__(
        self,
        job: Job,
        architecture: Architecture,
        calibration: Calibration,
        trainer: Trainer | None,
        knobs: tuple[Knob, ...],
        room: Room = fitting_room,
    ) -> None:
        self.job = job
        self._room = room
        self.knobs = knobs
        self.as_is: Choice = (0,) * len(knobs)
        # Cut once: what is computed of an architecture is remembered by its identity.
        cut = architecture if job.num_hidden_layers is None else with_layers(architecture, job.num_hidden_layers)
        self._architecture = cut
        self._calibration = calibration
        self._trainer = trainer
        self._prepared: dict[Choice, Prepared | None] = {}
        self._outcomes: dict[tuple[Choice, int], Outcome | None] = {}
        self._longest: dict[Choice, int] = {}

    def with_room(self, room: Room) -> Bench:
        """The same job and knobs, where another room counts."""
        other = Bench(self.job, self._architecture, self._calibration, self._trainer, self.knobs, room)
        other._prepared, other._outcomes, other._longest = self._prepared, self._outcomes, self._longest
        return other

    def on(self, gpu: str) -> Bench:
        """The same job and knobs on another card."""
        job = replace(self.job, gpu=gpu)
        return Bench(job, self._architecture, self._calibration, self._trainer, self.knobs, self._room)

    @property
    def simulated(self) -> int:
        """How many changed jobs were simulated at some length, longest contexts apart."""
        return len(self._outcomes)

    def options(self, choice: Choice) -> list[Option]:
        """The options that a choice takes."""
        return [knob.options[number - 1] for knob, number in zip(self.knobs, choice, strict=True) if number]

    def price(self, choice: Choice) -> Price:
        """What they cost together."""
        price = FREE
        for option in self.options(choice):
            price = price.plus(option.price)
        return price

    def changes(self, choice: Choice) -> dict[str, Any]:
        """Keys of the job with their new values."""
        return merged(option.changes for option in self.options(choice))

    def prepared(self, choice: Choice) -> Prepared | None:
        """The changed job; None where the stack refuses it."""
        if choice not in self._prepared:
            self._prepared[choice] = self.prepare(self.changes(choice))
        return self._prepared[choice]

    def prepare(self, changes: Changes) -> Prepared | None:
        """The job with any changes; None where the stack refuses them."""
        try:
            return prepare(replace(self.job, **changes), self._architecture, self._calibration, trainer=self._trainer)
        except CtxplanError:
            return None

    def outcome(self, choice: Choice, length: int = AS_ASKED) -> Outcome | None:
        """The changed job at a length; None where the stack refuses it."""
        key = choice, length
        if key not in self._outcomes:
            prepared = self.prepared(choice)
            self._outcomes[key] = None if prepared is None else simulated(prepared, length)
        return self._outcomes[key]

    def room(self, choice: Choice, length: int = AS_ASKED) -> int:
        """Bytes left; positive where the changed job fits."""
        outcome = self.outcome(choice, length)
        return REFUSED if outcome is None else self._room(outcome)

    def longest(self, choice: Choice) -> int:
        """The longest safe context, as `estimator.max_context` finds it; 0 where there is none."""
        if choice not in self._longest:
            prepared = self.prepared(choice)
            self._longest[choice] = 0 if prepared is None else longest_safe(prepared)
        return self._longest[choice]


def merged(changes: Iterable[Changes]) -> dict[str, Any]:
    """All changes in one; no two set the same key."""
    return {key: value for some in changes for key, value in some.items()}


def simulated(prepared: Prepared, length: int = AS_ASKED) -> Outcome:
    """A prepared job at a length."""
    if length != AS_ASKED:
        return outcome_at(prepared, length, length)
    job = prepared.run.job
    return outcome_at(prepared, job.max_seq_length, job.sequence_length or job.max_seq_length)


def longest_safe(prepared: Prepared) -> int:
    """The longest safe context of a prepared job, its own length aside."""
    return Search(prepared).longest(fitting_room)
