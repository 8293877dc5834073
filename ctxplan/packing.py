"""What batching costs in tokens that no document holds: the padding of dense batches, the room left in packed rows.

Everything is reckoned from how many documents have each length, so that it takes as long for a billion documents as for
a thousand of the same lengths.

    counts   length in tokens -> documents of that length
    S        max_seq_length; what a document has beyond it is cut off
    B        per_device_train_batch_size
"""

from __future__ import annotations

from collections.abc import Mapping
from math import exp, inf, lgamma
from typing import NamedTuple

_WORD = 1024


class Packed(NamedTuple):
    """Rows of ``max_seq_length`` tokens, and the tokens of room that the documents leave in them."""

    rows: int
    unused_tokens: int


def packed(counts: Mapping[int, int], max_seq_length: int) -> Packed:
    """Pack the documents into rows, best fit and longest first.

    The same rows as TRL's ``packing_strategy="bfd"`` makes of one table: each document goes into the row with the least
    room that still takes it. Source: TRL 1.15, ``data_utils.py`` ``_pack_bfd``. TRL packs each 1,000 documents by
    themselves unless ``map`` is told another ``batch_size``, which as a rule takes some more rows than all together.
    Documents of equal length are placed at once, so the time grows with the distinct lengths, not with the documents.
    """
    rows = sum(number for length, number in counts.items() if length >= max_seq_length)
    held_tokens = rows * max_seq_length
    open_rows = _OpenRows()
    for length in sorted((length for length in counts if 0 < length < max_seq_length), reverse=True):
        held_tokens += length * counts[length]
        rows += _place(open_rows, length, counts[length], max_seq_length)
    return Packed(rows, rows * max_seq_length - held_tokens)


def _place(open_rows: _OpenRows, length: int, number: int, max_seq_length: int) -> int:
    """Put ``number`` documents of a length into rows; returns how many new rows that took."""
    while number:
        room = open_rows.least_room(length)
        if room is None:
            break
        # A row that has taken one and still has room for another is then the one with the least room: it is filled.
        each = room // length
        filled = min(open_rows.number(room), number // each)
        if filled:
            open_rows.change(room, -filled)
            open_rows.change(room - each * length, filled)
            number -= filled * each
        else:
            open_rows.change(room, -1)
            open_rows.change(room - number * length, 1)
            number = 0
    each = max_seq_length // length
    full, rest = divmod(number, each)
    open_rows.change(max_seq_length - each * length, full)
    if rest:
        open_rows.change(max_seq_length - rest * length, 1)
    return full + bool(rest)


class _OpenRows:
    """How many rows have each amount of room, with the smallest amount from a given one on found in two steps: the
    amounts are bits, in words of `_WORD`, and a bit of the summary says which words have any."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._words: dict[int, int] = {}
        self._summary = 0

    def number(self, room: int) -> int:
        return self._numbers.get(room, 0)

    def change(self, room: int, difference: int) -> None:
        """Have so many rows more with this room; rows without any are forgotten."""
        if not room or not difference:
            return
        before = self._numbers.get(room, 0)
        if before + difference:
            self._numbers[room] = before + difference
        else:
            del self._numbers[room]
        if bool(before) != bool(before + difference):
            self._flip(room)

    def _flip(self, room: int) -> None:
        index, bit = divmod(room, _WORD)
        before = self._words.get(index, 0)
        after = self._words[index] = before ^ (1 << bit)
        if not before or not after:
            self._summary ^= 1 << index

    def least_room(self, room: int) -> int | None:
        """The smallest room that any row has, ``room`` or more."""
        index, bit = divmod(room, _WORD)
        word = self._words.get(index, 0) >> bit
        if word:
            return room + _lowest(word)
        further = self._summary >> (index + 1)
        if not further:
            return None
        index += 1 + _lowest(further)
        return index * _WORD + _lowest(self._words[index])


def _lowest(bits: int) -> int:
    return (bits & -bits).bit_length() - 1


class Padding:
    """What dense batches of documents drawn at random are expected to hold in padding.

    A dense batch is padded to its longest document (transformers' and TRL's collators do so by default).
    """

    def __init__(self, counts: Mapping[int, int], batch_size: int) -> None:
        """counts: of at least one document. batch_size: documents in a batch, B; the last batch has what is left."""
        self._lengths = sorted(counts)
        self._counts = counts
        self._documents = sum(counts.values())
        full, rest = divmod(self._documents, batch_size)
        self._batches = [(number, size) for number, size in ((full, batch_size), (min(rest, 1), rest)) if number]
        self._all_below = [self._chances(size) for _, size in self._batches]

    @property
    def batches(self) -> int:
        """Batches of one epoch."""
        return sum(number for number, _ in self._batches)

    def expected_tokens(self, max_seq_length: int) -> int:
        """The padding of an epoch, in tokens: the expectation over every order of the documents, which are drawn
        without replacement."""
        dense = 0.0
        for (number, size), chances in zip(self._batches, self._all_below, strict=True):
            dense += number * size * self._expected_longest(chances, max_seq_length)
        real = sum(min(length, max_seq_length) * number for length, number in self._counts.items())
        return max(0, round(dense - real))

    def _expected_longest(self, chances: list[float], max_seq_length: int) -> float:
        expected = below = 0.0
        for length, chance in zip(self._lengths, chances, strict=True):
            if length >= max_seq_length:
                break
            expected += length * (chance - below)
            below = chance
        else:
            return expected
        return expected + max_seq_length * (1.0 - below)

    def _chances(self, size: int) -> list[float]:
        """For each length, the probability that ``size`` documents are all of at most that length."""
        every = _log_choices(self._documents, size)
        chances, documents = [], 0
        for length in self._lengths:
            documents += self._counts[length]
            chances.append(exp(_log_choices(documents, size) - every))
        return chances


def _log_choices(documents: int, size: int) -> float:
    """The logarithm of in how many ways so many can be chosen."""
    if documents < size:
        return -inf
    return lgamma(documents + 1) - lgamma(documents - size + 1) - lgamma(size + 1)
