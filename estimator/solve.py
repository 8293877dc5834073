"""The inverse: the longest context of a job.

Within a regime a longer context never needs less, so each stretch of one regime has one last length that fits. The
regimes change where the embedding leaves the GPU and where the second staging buffer is refused; both depend on the
length monotonically, so the stretches are found by bisection, and the last fitting length of each by a secant that
ends in a bisection over whole tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from estimator.answer import Outcome, Prepared, describe, outcome_at, prepare
from estimator.architecture import Architecture
from estimator.calibration.document import STRUCTURAL, Calibration
from estimator.calibration.evidence import measured_tokens
from estimator.checkpointing import MINIMUM_OFFLOAD_BYTES, SMART_MIN_LENGTH
from estimator.embedding import embedding_offloaded
from estimator.estimate import MaxContext
from estimator.job import MAX_TOKENS, Job
from estimator.loss import FLASH_MIN_ROWS

Room = Callable[[Outcome], int]

SLOPE_STEPS = 12


class Stretch(NamedTuple):
    """Lengths first..last in which a longer context never needs less."""

    first: int
    last: int


def max_context(job: Job, architecture: Architecture, calibration: Calibration = STRUCTURAL) -> MaxContext:
    """The longest max_seq_length, expected and safe, with what limits it.

    Every length is planned as max_seq_length and as the length of each sequence; a sequence_length in the job is not
    used.

    Raises:
        CtxplanError: as `estimator.estimate`.
    """
    prepared = prepare(replace(job, sequence_length=None), architecture, calibration)
    search = Search(prepared)
    expected = search.longest(running_room)
    safe = search.longest(fitting_room)
    ends = expected == MAX_TOKENS
    assumptions = ["every length is planned as max_seq_length and as the length of each sequence"]
    if job.sequence_length is not None:
        assumptions.append("sequence_length is not used: the longest context is asked for")
    if ends:
        assumptions.append(f"no length over {MAX_TOKENS:,} tokens is looked at")
    if not safe:
        least = search.at(1)
        assumptions.append(
            f"one token already needs {least.needed.expected:,} B ({least.needed.upper:,} B by the bound), "
            f"and the card leaves {least.room:,} B"
        )
    at_safe = describe(prepared, search.at(safe)) if safe else None
    return MaxContext(
        expected=expected,
        safe=safe,
        limited_by="architecture" if ends else search.at(expected + 1).limited_by,
        does_not_fit=search.gaps(expected, running_room),
        not_safe=search.gaps(safe, fitting_room),
        estimate=at_safe,
        assumptions=(*assumptions, *(at_safe.assumptions if at_safe else prepared.run.assumptions)),
        job=prepared.run.job,
    )


class Search:
    """Simulated lengths of one job, remembered."""

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._outcomes: dict[int, Outcome] = {}
        self._stretches: tuple[Stretch, ...] = ()
        self._coarse: list[Stretch] = []

    def at(self, length: int) -> Outcome:
        """The outcome at one length."""
        outcome = self._outcomes.get(length)
        if outcome is None:
            outcome = self._outcomes[length] = outcome_at(self._prepared, length, length)
        return outcome

    def longest(self, room: Room) -> int:
        """The largest length that has room, 0 where none has. The shorter stretches are not looked at."""
        for coarse in reversed(self._coarse_stretches()):
            for stretch in reversed(self._cut_at_double_buffer(coarse)):
                last = self._last(stretch, room)
                if last:
                    return last
        return 0

    def gaps(self, longest: int, room: Room) -> tuple[tuple[int, int], ...]:
        """Ranges of lengths below ``longest`` that have no room."""
        found: list[tuple[int, int]] = []
        for stretch in self.stretches():
            if stretch.first > longest:
                break
            fitting = self._last(stretch, room)
            first, last = (fitting + 1 if fitting else stretch.first), min(stretch.last, longest)
            if first <= last:
                found = _joined(found, (first, last))
        return tuple(found)

    def stretches(self) -> tuple[Stretch, ...]:
        """The lengths cut wherever a decision of the stack changes."""
        if not self._stretches:
            coarse = self._coarse_stretches()
            self._stretches = tuple(fine for stretch in coarse for fine in self._cut_at_double_buffer(stretch))
        return self._stretches

    def _coarse_stretches(self) -> list[Stretch]:
        """The lengths cut wherever a decision changes that follows from the job alone."""
        if not self._coarse:
            cuts = sorted({1, *self._fixed_cuts(), *self._embedding_cut()})
            self._coarse = [Stretch(a, b - 1) for a, b in zip(cuts, [*cuts[1:], MAX_TOKENS + 1], strict=True)]
        return self._coarse

    def _fixed_cuts(self) -> set[int]:
        run = self._prepared.run
        batch = run.job.per_device_train_batch_size
        offload = MINIMUM_OFFLOAD_BYTES // (2 * batch * run.architecture.hidden_size) + 1
        tiled_loss = -(-FLASH_MIN_ROWS // batch) + 1
        cuts = {SMART_MIN_LENGTH, offload, tiled_loss, measured_tokens(run) // batch + 1}
        return {cut for cut in cuts if 1 < cut <= MAX_TOKENS}

    def _embedding_cut(self) -> set[int]:
        run, statics = self._prepared
        if embedding_offloaded(run, statics, 1) or not embedding_offloaded(run, statics, MAX_TOKENS):
            return set()
        low, high = 1, MAX_TOKENS
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if embedding_offloaded(run, statics, middle) else (middle, high)
        return {high}

    def _cut_at_double_buffer(self, stretch: Stretch) -> list[Stretch]:
        """Two stretches where the second staging buffer is refused from some length on."""
        if (
            self.at(stretch.last).simulation.regime.double_buffer
            or not self.at(stretch.first).simulation.regime.double_buffer
        ):
            return [stretch]
        last = last_true(stretch, lambda n: self.at(n).simulation.double_buffer_room_bytes)
        return [Stretch(stretch.first, last), Stretch(last + 1, stretch.last)]

    def _last(self, stretch: Stretch, room: Room) -> int:
        if room(self.at(stretch.last)) > 0:
            return stretch.last
        if room(self.at(stretch.first)) <= 0:
            return 0
        return last_true(stretch, lambda n: room(self.at(n)))


def fitting_room(outcome: Outcome) -> int:
    """Bytes left by the bound, on the device or the host, whichever is tighter; positive where the verdict is fits."""
    return outcome.safe_room


def running_room(outcome: Outcome) -> int:
    """Bytes left by what is expected; positive where the verdict is not does_not_fit."""
    return outcome.expected_room


def _joined(found: list[tuple[int, int]], gap: tuple[int, int]) -> list[tuple[int, int]]:
    if found and found[-1][1] + 1 == gap[0]:
        return [*found[:-1], (found[-1][0], gap[1])]
    return [*found, gap]


def last_true(stretch: Stretch, room: Callable[[int], int]) -> int:
    """The last length of a stretch whose room is positive, given that the first one's is.

    Room falls with length along a line with small steps in it (cuDNN pads to 128 tokens): the line's slope turns the
    room at a guess into the next guess, and halving ends it where the steps would keep it walking.
    """
    low, high = stretch
    low_room, high_room = room(low), room(high)
    if high_room > 0:
        return high
    slope = (low_room - high_room) / (high - low)
    guess = low + int(low_room / slope)
    for _ in range(SLOPE_STEPS):
        if high - low <= 1:
            return low
        guess = min(max(guess, low + 1), high - 1)
        left = room(guess)
        low, high = (guess, high) if left > 0 else (low, guess)
        guess += int(left / slope) or (1 if left > 0 else -1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if room(middle) > 0 else (low, middle)
    return low
