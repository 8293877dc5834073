"""The search for the longest context, on a card whose memory is not quite what the planner expects."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ctxplan import Planner
from probes.errors import PointError
from probes.measurement import Measurement
from probes.points import Point, parse_point
from probes.search import SearchError, remembered, search
from tests.probes.documents import measured, measured_on_the_cpu, out_of_memory

PLANNER = Planner(offline=True)
POINT = parse_point({"model": "unsloth/Llama-3.3-70B-Instruct-bnb-4bit", "gpu": "H100-80GB", "r": 32})
TOTAL_BYTES = 85_020_639_232
SWITCHED = PLANNER.max_context(POINT.job)
"""Its lengths that fit come in two ranges: without the second staging buffer longer ones fit again."""


class Card:
    """A card that runs what the estimator says fits a card of its size, and remembers what it was asked."""

    def __init__(self, more_bytes: int = 0) -> None:
        self.gpu = {"name": "H100-80GB", "total_bytes": TOTAL_BYTES + more_bytes}
        self.asked: list[int] = []

    def longest(self) -> int:
        return PLANNER.max_context(replace(POINT.job, gpu=self.gpu)).expected

    def measure(self, point: Point) -> Measurement:
        self.asked.append(point.sequence_length)
        fits = PLANNER.estimate(replace(point.job, gpu=self.gpu)).verdict != "does_not_fit"
        return measured(point) if fits else out_of_memory(point)


def limit(tokens: int) -> Callable[[Point], Measurement]:
    """A card on which every length up to ``tokens`` runs."""
    return lambda point: measured(point) if point.sequence_length <= tokens else out_of_memory(point)


def test_the_planner_knows_a_regime_switch_below_the_end() -> None:
    assert len(SWITCHED.does_not_fit) == 1


@pytest.mark.parametrize("more_bytes", [0, 300 * 2**20, -300 * 2**20, 4 * 2**30, -4 * 2**30, -12 * 2**30])
def test_it_ends_within_its_resolution_of_the_longest_that_runs(more_bytes: int) -> None:
    card = Card(more_bytes)
    found = search(POINT, card.measure, resolution=256)
    end = found.shortest_out_of_memory
    assert end is not None
    assert 0 < end - found.longest_ok <= 256
    outcomes = {m.sequence_length: m.outcome for m in found.measurements}
    assert outcomes[found.longest_ok] == "ok"
    assert outcomes[end] == "out_of_memory"
    assert len(card.asked) == len(set(card.asked)) <= 18


@pytest.mark.parametrize("more_bytes", [0, 2**30, 4 * 2**30])
def test_with_no_less_than_expected_it_finds_what_lies_beyond_the_switch(more_bytes: int) -> None:
    card = Card(more_bytes)
    found = search(POINT, card.measure, resolution=256)
    assert card.longest() - 256 <= found.longest_ok <= card.longest()
    assert found.longest_ok > SWITCHED.does_not_fit[0][1]


def test_it_starts_where_the_planner_expects_the_end() -> None:
    card = Card()
    found = search(POINT, card.measure)
    assert card.asked[0] == found.expected == SWITCHED.expected
    assert found.safe == SWITCHED.safe


def test_each_length_is_a_point_of_its_own_with_that_max_seq_length() -> None:
    lengths: list[tuple[int, int | None]] = []

    def measure(point: Point) -> Measurement:
        lengths.append((point.job.max_seq_length, point.job.sequence_length))
        return limit(50_000)(point)

    given = replace(POINT, job=replace(POINT.job, max_seq_length=8192, sequence_length=4096))
    assert abs(search(given, measure).longest_ok - 50_000) <= 1024
    assert all(sequence is None for _, sequence in lengths)


def test_nothing_outside_the_bounds_is_run() -> None:
    asked: list[int] = []

    def measure(point: Point) -> Measurement:
        asked.append(point.sequence_length)
        return limit(10**9)(point)

    found = search(POINT, measure, low=4096, high=20_000)
    assert found.longest_ok == 20_000
    assert found.shortest_out_of_memory is None
    assert found.limited_by == "bound"
    assert all(4096 <= length <= 20_000 for length in asked)


def test_where_not_even_the_least_runs_the_longest_is_none() -> None:
    found = search(POINT, limit(0), low=2048)
    assert (found.longest_ok, found.shortest_out_of_memory) == (0, 2048)


def test_memory_of_the_host_ends_a_search_too_and_is_told_apart() -> None:
    def measure(point: Point) -> Measurement:
        ok = point.sequence_length <= 65_536
        gone = {"peak_allocated_bytes": None}
        return measured(point) if ok else measured(point, outcome="host_out_of_memory", steps_run=0, steps=(), **gone)

    found = search(POINT, measure, resolution=64)
    assert 65_472 < found.longest_ok <= 65_536
    assert found.limited_by == "host"


def test_a_card_under_a_cap_is_searched_where_the_capped_card_is_expected_to_end() -> None:
    capped = replace(POINT, cap_bytes=60 * 2**30)
    found = search(capped, limit(30_000))
    assert found.expected < SWITCHED.expected * 0.6
    assert all(m.sequence_length <= found.expected for m in found.measurements)


@pytest.mark.parametrize("outcome", ["neighbour", "crashed", "timed_out"])
def test_a_void_run_is_tried_once_more_and_then_counts_as_it_ends(outcome: str) -> None:
    asked: list[int] = []

    def measure(point: Point) -> Measurement:
        asked.append(point.sequence_length)
        return measured(point, outcome=outcome) if len(asked) == 1 else limit(90_000)(point)

    found = search(POINT, measure)
    assert asked[0] == asked[1]
    assert abs(found.longest_ok - 90_000) <= 1024
    assert found.measurements[0].outcome == outcome


def test_a_run_that_is_void_twice_stops_the_search_with_all_that_was_measured() -> None:
    def measure(point: Point) -> Measurement:
        void = point.sequence_length < 115_000
        return measured(point, outcome="neighbour", detail="pid 7 holds 3 GiB") if void else out_of_memory(point)

    with pytest.raises(SearchError, match="neighbour: pid 7 holds 3 GiB") as stopped:
        search(POINT, measure)
    assert [m.outcome for m in stopped.value.measurements[-2:]] == ["neighbour", "neighbour"]
    assert stopped.value.measurements[0].outcome == "out_of_memory"


@pytest.mark.parametrize("outcome", ["wrong_gpu", "not_supported"])
def test_a_run_that_cannot_come_right_is_not_tried_again(outcome: str) -> None:
    asked: list[int] = []

    def measure(point: Point) -> Measurement:
        asked.append(point.sequence_length)
        return measured(point, outcome=outcome)

    with pytest.raises(SearchError, match=outcome):
        search(POINT, measure)
    assert len(asked) == 1


@pytest.mark.parametrize(("low", "high", "resolution"), [(0, 10, 1), (11, 10, 1), (1, 10, 0), (1, 2**40, 1)])
def test_bounds_that_leave_nothing_are_refused(low: int, high: int, resolution: int) -> None:
    with pytest.raises(PointError):
        search(POINT, limit(1), low=low, high=high, resolution=resolution)


def test_documents_of_a_length_of_their_own_are_refused() -> None:
    with pytest.raises(PointError, match="a search has many") as refused:
        search(replace(POINT, sample_lengths=(1024, 1024)), limit(1))
    assert refused.value.key == "sample_lengths"


def test_a_run_without_a_gpu_is_no_answer() -> None:
    with pytest.raises(SearchError, match="without a GPU"):
        search(POINT, measured_on_the_cpu)


def test_a_search_that_was_cut_off_goes_on_from_its_file(tmp_path: Path) -> None:
    file, card = tmp_path / "runs.jsonl", Card()

    def cut_off(point: Point) -> Measurement:
        if len(card.asked) == 3:
            raise KeyboardInterrupt
        return card.measure(point)

    with pytest.raises(KeyboardInterrupt):
        search(POINT, remembered(cut_off, file))
    found = search(POINT, remembered(card.measure, file))
    assert len(card.asked) == len(set(card.asked)) == len(found.measurements)
    assert [json.loads(line)["sequence_length"] for line in file.read_text().splitlines()] == card.asked


def test_a_void_run_in_the_file_is_run_again(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    with pytest.raises(SearchError):
        search(POINT, remembered(lambda point: measured(point, outcome="neighbour"), file))
    assert search(POINT, remembered(limit(90_000), file)).longest_ok > 88_000
