"""The longest context that really runs on this card: bisection over real runs, begun where the planner expects the end.

A run that ends ok or out of memory is an answer. One that a neighbour disturbed, that crashed or hung is none: it is
tried once more, and then the search stops rather than take it for either. Where the planner sees a regime switch, the
lengths that fit come in ranges; the search tries the highest range first, since what runs there is longer than all
that runs below it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from ctxplan import Planner
from estimator import Job, MaxContext, find_device
from estimator.job import MAX_TOKENS
from probes.errors import PointError, ProbeError
from probes.files import append_document, check_writable
from probes.measurement import Measurement
from probes.points import Point
from probes.rows import read_measurements
from probes.twins import PLANNER, planned_job

Measure = Callable[[Point], Measurement]

RESOLUTION = 1024
"""Tokens within which the end is found, unless asked otherwise."""
ENDED_BY_MEMORY = ("out_of_memory", "host_out_of_memory")
VOID = ("neighbour", "crashed", "timed_out")
"""Outcomes that say nothing about the length and may not come again."""
TRIES = 2
AMPLE = 1.25
"""A card so much larger than planned takes no decision that saves memory at the length that just ran."""
ROUNDS = 8
CLIMB = 0.05
"""How much longer the next try is where even the expected end runs, and how much shorter where even the safe one does
not; twice as much each time."""


class SearchError(ProbeError):
    """A run that is no answer, so that the search cannot go on.

    Attributes:
        measurements: every run until then, the one that stopped the search last.
    """

    code = "search-stopped"

    def __init__(self, message: str, measurements: Sequence[Measurement]) -> None:
        super().__init__(message)
        self.measurements = tuple(measurements)


@dataclass(frozen=True, slots=True, kw_only=True)
class Longest:
    """What a search found. Tokens.

    Attributes:
        longest_ok: the longest length that ran; 0 where none did.
        shortest_out_of_memory: the shortest longer one that ran out of memory; None where the search was not allowed
            any length that does.
        limited_by: what ran out there, ``gpu`` or ``host``; ``bound`` where nothing did.
        safe, expected: what the planner said beforehand.
        measurements: every run, in order, void ones included.
    """

    longest_ok: int
    shortest_out_of_memory: int | None
    limited_by: str
    safe: int
    expected: int
    measurements: tuple[Measurement, ...]


class Range(NamedTuple):
    """Lengths from first to last, both included."""

    first: int
    last: int


def search(
    point: Point,
    measure: Measure,
    low: int = 1,
    high: int = MAX_TOKENS,
    resolution: int = RESOLUTION,
    *,
    planner: Planner = PLANNER,
) -> Longest:
    """Find the longest context of a point's job on this card, to within ``resolution`` tokens.

    Args:
        point: its own lengths are not used; each try has one length as max_seq_length and as its sequence.
        measure: runs a point in a fresh process. low, high: no length outside them is run.

    Raises:
        SearchError: a run that is neither ok nor out of memory, twice. PointError: bounds that leave nothing; documents
        of a length of their own.
        CtxplanError: the job cannot be planned.
    """
    if not 1 <= low <= high <= MAX_TOKENS or resolution < 1:
        raise PointError(f"nothing lies between {low} and {high}", key="high", allowed=f"low to {MAX_TOKENS}")
    if point.sample_lengths:
        raise PointError("belongs to one length, and a search has many", key="sample_lengths", allowed="none")
    planned = planner.max_context(planned_job(point))
    tries = _Tries(point, measure)
    longest = _narrowed(tries, _anchor(tries, planned, low, high), high, resolution)
    beyond = _beyond_a_switch(tries, planner, planned_job(point), longest, high) if longest else 0
    longest = _narrowed(tries, beyond, high, resolution) if beyond else longest
    return Longest(
        longest_ok=longest,
        shortest_out_of_memory=tries.shortest_failing_above(longest),
        limited_by=tries.limit_at(tries.shortest_failing_above(longest)),
        safe=planned.safe,
        expected=planned.expected,
        measurements=tuple(tries.measurements),
    )


def remembered(measure: Measure, path: Path) -> Measure:
    """The same, keeping each measurement in a file of JSON lines, and not running again what ended there.

    Raises:
        EvidenceError: the file cannot be read or written, or holds what is no measurement.
    """
    check_writable(path, read_again=True)
    known = {row.point: row for row in read_measurements(path) if row.outcome in ("ok", *ENDED_BY_MEMORY)}

    def measure_once(point: Point) -> Measurement:
        if point.digest in known:
            return known[point.digest]
        measurement = measure(point)
        append_document(path, measurement.model_dump(mode="json"))
        return measurement

    return measure_once


@dataclass
class _Tries:
    """Lengths that were run, each once, and once more where it was void."""

    point: Point
    measure: Measure
    measurements: list[Measurement] = field(default_factory=list)
    outcomes: dict[int, str] = field(default_factory=dict)

    def runs(self, length: int) -> bool:
        """Whether a length ends ok; run now, unless it was before."""
        if length not in self.outcomes:
            self.outcomes[length] = self._outcome(length)
        return self.outcomes[length] == "ok"

    def shortest_failing_above(self, length: int) -> int | None:
        return min((n for n, outcome in self.outcomes.items() if n > length and outcome != "ok"), default=None)

    def limit_at(self, length: int | None) -> str:
        if length is None:
            return "bound"
        return "host" if self.outcomes[length] == "host_out_of_memory" else "gpu"

    def _outcome(self, length: int) -> str:
        job = replace(self.point.job, max_seq_length=length, sequence_length=None)
        for _ in range(TRIES):
            measurement = self.measure(replace(self.point, job=job))
            self.measurements.append(measurement)
            if measurement.outcome == "ok" and measurement.gpu is None:
                raise SearchError(f"{length} tokens ran without a GPU, whose memory is asked for", self.measurements)
            if measurement.outcome == "ok" or measurement.outcome in ENDED_BY_MEMORY:
                return measurement.outcome
            if measurement.outcome not in VOID:
                break
        said = f": {measurement.detail}" if measurement.detail else ""
        raise SearchError(f"{length} tokens: {measurement.outcome}{said}", self.measurements)


def _anchor(tries: _Tries, planned: MaxContext, low: int, high: int) -> int:
    """A length that runs, as long as the plan knows one; 0 where not even ``low`` does."""
    ranges = _fitting_ranges(planned, low, high)
    for narrow in reversed(ranges[1:]):
        for length in (narrow.last, (narrow.first + narrow.last) // 2):
            if tries.runs(length):
                return length
    lowest = ranges[0]
    safe = min(max(planned.safe, lowest.first), lowest.last)
    for length in dict.fromkeys((lowest.last, safe)):
        if tries.runs(length):
            return length
    length, step = safe, max(1, int(safe * CLIMB))
    while length > low:
        length, step = max(low, length - step), 2 * step
        if tries.runs(length):
            return length
    return 0


def _narrowed(tries: _Tries, longest: int, high: int, resolution: int) -> int:
    """From a length that runs to the longest before one that does not: upwards until one does not, then by halves."""
    step = max(resolution, int(longest * CLIMB))
    while longest and longest < high and tries.shortest_failing_above(longest) is None:
        length = min(high, longest + step)
        longest, step = (length, 2 * step) if tries.runs(length) else (longest, step)
    end = tries.shortest_failing_above(longest)
    while longest and end is not None and end - longest > resolution:
        middle = (longest + end) // 2
        longest, end = (middle, end) if tries.runs(middle) else (longest, middle)
    return longest


def _beyond_a_switch(tries: _Tries, planner: Planner, job: Job, longest: int, high: int) -> int:
    """A longer length that runs in another regime, 0 where there is none.

    Where the runs ended elsewhere than planned, so does the switch lie elsewhere: the plan is made again for a card
    with as many bytes more or fewer as the end says.
    """
    implied = planner.max_context(replace(job, gpu=_implied_card(planner, job, longest)))
    for narrow in reversed(_fitting_ranges(implied, longest, high)[1:]):
        for length in (narrow.last, (narrow.first + narrow.last) // 2):
            if tries.runs(length):
                return length
    return 0


def _implied_card(planner: Planner, job: Job, longest: int) -> dict[str, str | int]:
    """The card on which ``longest`` just fits: the largest, if regimes make it several."""
    device = find_device(job.gpu)
    total_bytes = int(device.total_bytes * AMPLE)
    for _ in range(ROUNDS):
        gpu: dict[str, str | int] = {"name": device.name, "total_bytes": total_bytes}
        ended = planner.estimate(replace(job, gpu=gpu, max_seq_length=longest, sequence_length=None))
        spare = ended.room_bytes - ended.needed_bytes.expected
        if not spare:
            break
        total_bytes -= spare
    return {"name": device.name, "total_bytes": total_bytes}


def _fitting_ranges(planned: MaxContext, low: int, high: int) -> list[Range]:
    """The lengths that are expected to fit, cut to the bounds, ascending; the lowest bound where none are."""
    ranges, first = [], 1
    for gap_first, gap_last in (*planned.does_not_fit, (planned.expected + 1, MAX_TOKENS)):
        cut = Range(max(first, low), min(gap_first - 1, high))
        if cut.first <= cut.last:
            ranges.append(cut)
        first = gap_last + 1
    return ranges or [Range(low, low)]
