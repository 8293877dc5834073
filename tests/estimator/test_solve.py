"""The search for the longest context: the last length that has room, whatever the shape of the room."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxplan.models import resolve_model
from estimator import estimate, max_context, parse_job
from estimator.answer import prepare
from estimator.job import MAX_TOKENS
from estimator.solve import Search, Stretch, last_true
from tests.estimator.random_jobs import STEADY, job_data, longest, read

LLAMA_8B = "meta-llama/Llama-3.1-8B-Instruct"


def counted(room: Callable[[int], int]) -> tuple[Callable[[int], int], list[int]]:
    asked: list[int] = []

    def ask(length: int) -> int:
        asked.append(length)
        return room(length)

    return ask, asked


class TestTheLastLengthWithRoom:
    def test_is_the_end_where_all_have_room(self):
        assert last_true(Stretch(1, 100), lambda n: 1) == 100

    def test_is_the_first_where_only_that_has_room(self):
        assert last_true(Stretch(5, 100), lambda n: 1 if n == 5 else -1) == 5

    def test_of_a_stretch_of_two_is_the_first(self):
        assert last_true(Stretch(7, 8), lambda n: 8 - n) == 7

    def test_is_found_on_a_line_in_a_few_steps(self):
        ask, asked = counted(lambda n: 77_000_000_000 - 356_608 * n)
        assert last_true(Stretch(1, MAX_TOKENS), ask) == 215_923
        assert len(asked) < 8

    def test_is_found_on_a_line_with_steps_of_128_in_few_steps(self):
        ask, asked = counted(lambda n: 77_000_000_000 - 300_000 * n - 56_000 * (n + 128 - n % 128))
        last = last_true(Stretch(1, MAX_TOKENS), ask)
        assert ask(last) > 0 >= ask(last + 1)
        assert len(asked) < 45

    @STEADY
    @given(
        st.integers(1, 1000),
        st.lists(st.integers(0, 10**7), min_size=1, max_size=60),
        st.integers(1, 10**8),
        st.integers(1, 500),
    )
    def test_is_found_for_any_falling_room_with_plateaus_and_cliffs(self, first, falls, start, width):
        """Each fall is a plateau of ``width`` lengths, some of them falling by nothing."""
        last = first + len(falls) * width

        def room(n: int) -> int:
            return int(start - sum(falls[: (n - first) // width]))

        expected = max(n for n in range(first, last + 1) if room(n) > 0)
        assert last_true(Stretch(first, last), room) == expected

    @STEADY
    @given(st.integers(1, 10**6), st.integers(0, 10**6), st.integers(1, 10**9), st.integers(0, 4))
    def test_is_found_for_any_bending_line(self, first, span, slope, bend):
        stretch = Stretch(first, first + span)
        start = slope * (span // 2 + 1)

        def room(n: int) -> int:
            return int(start - slope * (n - first) - bend * (n - first) ** 2)

        last = last_true(stretch, room)
        assert room(last) > 0
        assert last == stretch.last or room(last + 1) <= 0


class TestStretches:
    @STEADY
    @given(job_data())
    def test_cover_every_length_once(self, data):
        longest(data)  # leaves out jobs that contradict themselves
        stretches = Search(prepare(*read(data))).stretches()
        assert stretches[0].first == 1
        assert stretches[-1].last == MAX_TOKENS
        assert all(one.last + 1 == other.first for one, other in pairwise(stretches))

    @STEADY
    @given(job_data())
    def test_need_few_simulations(self, data):
        longest(data)
        search = Search(prepare(*read(data)))
        search.longest(lambda outcome: outcome.safe_room)
        assert len(search._outcomes) < 120


def test_a_job_that_never_fits_has_no_longest_context():
    found = max_context(parse_job({"model": LLAMA_8B, "load_in_16bit": True, "gpu": "T4-16GB"}), shape(LLAMA_8B))
    assert (found.expected, found.safe, found.limited_by, found.estimate) == (0, 0, "gpu", None)
    assert found.to_json()["at_safe"] is None


def test_a_card_without_end_is_limited_by_the_longest_length_there_is():
    gpu = {"name": "H200", "total_bytes": 2**50}
    found = max_context(parse_job({"model": LLAMA_8B, "gpu": gpu}), shape(LLAMA_8B))
    assert found.expected == MAX_TOKENS
    assert found.limited_by == "architecture"
    assert f"no length over {MAX_TOKENS:,} tokens is looked at" in found.assumptions


def test_a_native_length_does_not_limit():
    found = max_context(parse_job({"model": "meta-llama/Llama-2-7b-hf"}), shape("meta-llama/Llama-2-7b-hf"))
    assert found.safe > 4096
    assert found.limited_by == "gpu"


@pytest.mark.parametrize("length", [None, 1000])
def test_a_sequence_length_is_not_used_and_said_so(length):
    found = max_context(parse_job({"model": LLAMA_8B, "sequence_length": length}), shape(LLAMA_8B))
    assert ("sequence_length is not used: the longest context is asked for" in found.assumptions) is (
        length is not None
    )


def test_a_regime_switch_leaves_a_gap_that_is_listed():
    """On 20 GiB the 8B does not quite fit while a second staging buffer is admitted, and does where it is refused."""
    gpu = {"name": "H100", "total_bytes": 20 * 2**30}
    found = max_context(parse_job({"model": LLAMA_8B, "gpu": gpu}), shape(LLAMA_8B))
    ((first, last),) = found.does_not_fit
    assert 30_000 < first < last < found.expected
    assert found.not_safe == ()
    assert found.to_json()["does_not_fit"] == [{"first": first, "last": last}]

    def plan(length: int):
        return estimate(parse_job({"model": LLAMA_8B, "gpu": gpu, "max_seq_length": length}), shape(LLAMA_8B))

    assert [plan(n).verdict != "does_not_fit" for n in (first - 1, first, last, last + 1)] == [True, False, False, True]
    assert [plan(n).regime["double_buffer"] for n in (last, last + 1)] == [True, False]


def shape(model: str):
    return resolve_model(model, offline=True).architecture
