"""What is told of token lengths, beside the plainest way to reckon each."""

from __future__ import annotations

import warnings
from collections import Counter
from fractions import Fraction
from itertools import permutations
from math import factorial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxplan.packing import Packed, Padding, packed
from ctxplan.token_lengths import PERCENTILES, DocumentsError, Question, TokenLengths, usual_lengths
from estimator.job import MAX_TOKENS

LENGTHS = st.lists(st.integers(0, 300), min_size=1, max_size=200)


def packed_one_by_one(lengths: list[int], max_seq_length: int) -> Packed:
    """Best fit decreasing, a document at a time."""
    rooms: list[int] = []
    for length in sorted((min(length, max_seq_length) for length in lengths if length), reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
            rooms.append(min(fitting) - length)
        else:
            rooms.append(max_seq_length - length)
    return Packed(len(rooms), sum(rooms))


def padding_of_every_order(lengths: list[int], batch_size: int) -> Fraction:
    """The mean padding over all orders of the documents."""
    total = 0
    for order in permutations(lengths):
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            total += max(batch) * len(batch) - sum(batch)
    return Fraction(total, factorial(len(lengths)))


class TestPacking:
    @given(LENGTHS, st.integers(1, 320))
    def test_as_many_rows_as_a_document_at_a_time_takes(self, lengths: list[int], max_seq_length: int) -> None:
        assert packed(Counter(lengths), max_seq_length) == packed_one_by_one(lengths, max_seq_length)

    @given(st.lists(st.integers(1, 5000), min_size=1, max_size=60), st.integers(900, 4000))
    def test_room_is_found_beyond_one_word_of_bits(self, lengths: list[int], max_seq_length: int) -> None:
        assert packed(Counter(lengths), max_seq_length) == packed_one_by_one(lengths, max_seq_length)

    @pytest.mark.parametrize("max_seq_length", [64, 100, 1000])
    def test_the_rows_are_those_of_trl(self, max_seq_length: int) -> None:
        """TRL itself, which takes seconds to import."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from datasets import Dataset
            from trl import pack_dataset

            lengths = [int(length) for length in np.random.default_rng(7).lognormal(4, 1, 700)]
            table = Dataset.from_dict({"input_ids": [[0] * length for length in lengths]})
            rows = pack_dataset(table, max_seq_length, map_kwargs={"batch_size": None})
        found = packed(Counter(lengths), max_seq_length)
        assert found.rows == len(rows)
        assert found.unused_tokens == len(rows) * max_seq_length - sum(len(row) for row in rows["input_ids"])

    def test_a_number_of_documents_takes_no_time(self) -> None:
        assert packed({300: 10**15, 212: 10**15}, 512) == Packed(10**15, 0)

    def test_documents_without_tokens_take_no_row(self) -> None:
        assert packed({0: 5}, 8) == Packed(0, 0)


class TestPadding:
    @given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 7), st.integers(1, 10))
    @settings(deadline=None)
    def test_is_the_mean_over_every_order(self, lengths: list[int], batch_size: int, most: int) -> None:
        counts = Counter(lengths)
        expected = padding_of_every_order([min(length, most) for length in lengths], batch_size)
        found = Padding(counts, batch_size).expected_tokens(most)
        assert abs(found - expected) <= Fraction(1, 2) + Fraction(1, 10**6)

    @given(LENGTHS, st.integers(1, 320))
    def test_a_batch_of_one_has_none(self, lengths: list[int], most: int) -> None:
        assert Padding(Counter(lengths), 1).expected_tokens(most) == 0

    def test_batches_count_the_last_one_that_is_not_full(self) -> None:
        assert Padding({3: 10}, 4).batches == 3


class TestReport:
    @given(LENGTHS)
    def test_percentiles_are_the_nearest_ranks(self, lengths: list[int]) -> None:
        found = TokenLengths.of(lengths)
        for percent in PERCENTILES:
            assert found.percentile(percent) == np.percentile(lengths, percent, method="inverted_cdf")

    @given(LENGTHS)
    def test_each_document_is_in_one_bucket(self, lengths: list[int]) -> None:
        buckets = TokenLengths.of(lengths).histogram()
        for bucket in buckets:
            inside = [length for length in lengths if bucket.first_tokens <= length <= bucket.last_tokens]
            assert (bucket.documents, bucket.tokens) == (len(inside), sum(inside))
        assert sum(bucket.documents for bucket in buckets) == len(lengths)
        assert [b.last_tokens + 1 for b in buckets[:-1]] == [b.first_tokens for b in buckets[1:]]

    @given(LENGTHS, st.sets(st.integers(1, 320), min_size=1, max_size=5))
    def test_cuts_are_what_is_beyond_each_length(self, lengths: list[int], asked: set[int]) -> None:
        cuts = TokenLengths.of(lengths).cuts(Question(max_seq_lengths=tuple(asked)))
        assert [cut.max_seq_length for cut in cuts] == sorted(asked)
        for cut in cuts:
            assert cut.documents_cut == sum(length > cut.max_seq_length for length in lengths)
            assert cut.tokens_lost == sum(max(0, length - cut.max_seq_length) for length in lengths)
            assert cut.tokens_kept + cut.tokens_lost == sum(lengths)
            assert cut.packed.rows * cut.max_seq_length == cut.tokens_kept + cut.packed.unused_tokens

    @pytest.mark.parametrize(
        ("longest", "lengths"),
        [(0, [64]), (300, [320]), (2048, [2048]), (2049, [2048, 2112]), (13_717, [2048, 4096, 8192, 13_760])],
    )
    def test_the_usual_lengths_end_with_the_longest_document_and_what_rounds_it(
        self, longest: int, lengths: list[int]
    ) -> None:
        assert usual_lengths(longest) == lengths

    def test_the_shortest_length_that_cuts_little_enough_is_recommended(self) -> None:
        lengths = TokenLengths({1000: 990, 3000: 9, 9000: 1})
        for percent, recommended in ((0.0, 9024), (0.1, 8192), (0.5, 4096), (1.0, 4096), (2.0, 2048)):
            found = lengths.report(Question(max_cut_percent=percent)).recommended
            assert found
            assert found.max_seq_length == recommended

    def test_few_documents_that_are_most_of_the_tokens_are_not_cut(self) -> None:
        found = TokenLengths({10: 999, 10**6: 1}).report(Question(max_cut_percent=1.0)).recommended
        assert found
        assert found.max_seq_length == 10**6

    def test_none_is_recommended_where_every_asked_length_cuts_too_much(self) -> None:
        report = TokenLengths({100: 1}).report(Question(max_seq_lengths=(10, 50)))
        assert report.recommended is None
        assert report.to_json()["max_seq_length"] == {"recommended": None, "nothing_cut": 100}

    @pytest.mark.parametrize("counts", [{}, {5: 0}, {-1: 1}, {MAX_TOKENS + 1: 1}, {5: -1}])
    def test_what_are_no_documents_is_refused(self, counts: dict[int, int]) -> None:
        with pytest.raises(DocumentsError):
            TokenLengths(counts)
