"""What the token lengths of documents say about ``max_seq_length``: percentiles, what is cut, what packing saves.

Nothing here reads or tokenizes: the input is how many documents have each length, which is all that has to be kept of
any number of documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ctxplan.packing import Packed, Padding, packed
from estimator.errors import CtxplanError
from estimator.job import MAX_TOKENS

PERCENTILES = (50, 90, 95, 99)
SHORTEST_USUAL = 2048
"""The usual lengths are this and its doublings: Unsloth's default, and what people ask for."""
ROUNDED_TO = 64
"""A length that cuts nothing is rounded up to whole multiples of this many tokens."""
MAX_CUT_PERCENT = 1.0
MOST_LENGTHS = 32
"""More lengths than this are not looked at in one question."""
BATCH_SIZE = 4
"""Unsloth's own default of ``per_device_train_batch_size``. Source: unsloth 2026.10.9, ``models/rl.py``."""


class DocumentsError(CtxplanError):
    """Documents, or lengths of documents, that cannot be counted."""

    code = "invalid-documents"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """What one ``max_seq_length`` does to the documents, in one epoch.

    Attributes:
        documents_cut: documents that are longer. tokens_lost: what they have beyond it. tokens_kept: all other tokens.
        batches: dense batches (the padding-free ones are as many, without padding).
        padding_tokens: expected in the dense batches. packed: the rows of a packed dataset.
        packed_batches: batches of as many packed rows.
    """

    max_seq_length: int
    documents_cut: int
    tokens_lost: int
    tokens_kept: int
    batches: int
    padding_tokens: int
    packed: Packed
    packed_batches: int

    def to_json(self) -> dict[str, Any]:
        return {
            "max_seq_length": self.max_seq_length,
            "documents_cut": self.documents_cut,
            "tokens_lost": self.tokens_lost,
            "tokens_kept": self.tokens_kept,
            "dense": {"batches": self.batches, "padding_tokens": self.padding_tokens},
            "packed": {
                "rows": self.packed.rows,
                "batches": self.packed_batches,
                "unused_tokens": self.packed.unused_tokens,
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """Documents with ``first_tokens`` to ``last_tokens`` tokens, both included."""

    first_tokens: int
    last_tokens: int
    documents: int
    tokens: int

    def to_json(self) -> dict[str, int]:
        return {
            "first_tokens": self.first_tokens,
            "last_tokens": self.last_tokens,
            "documents": self.documents,
            "tokens": self.tokens,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is to be told of the lengths.

    Attributes:
        max_seq_lengths: the lengths to look at, in tokens; empty for the usual ones.
        max_cut_percent: what a recommended length may cut at most, in percent of the documents and of the tokens.
        per_device_train_batch_size: documents of a dense batch, or rows of a packed one.
    """

    max_seq_lengths: tuple[int, ...] = ()
    max_cut_percent: float = MAX_CUT_PERCENT
    per_device_train_batch_size: int = BATCH_SIZE


class TokenLengths:
    """How many documents have each length in tokens.

    Raises:
        DocumentsError: no documents; a length or a number of documents that none can be.
    """

    def __init__(self, counts: Mapping[int, int]) -> None:
        """counts: length in tokens -> documents."""
        self.counts = {length: counts[length] for length in sorted(counts) if counts[length]}
        if not self.counts:
            raise DocumentsError("there are no documents", allowed="at least one")
        for length, number in self.counts.items():
            if not 0 <= length <= MAX_TOKENS or number < 0:
                message = f"{number} documents of {length} tokens are none"
                raise DocumentsError(message, allowed=f"lengths from 0 to {MAX_TOKENS}")
        self.documents = sum(self.counts.values())
        self.tokens = sum(length * number for length, number in self.counts.items())
        self.longest = max(self.counts)

    @classmethod
    def of(cls, lengths: Sequence[int]) -> TokenLengths:
        """From one length a document."""
        return cls(Counter(lengths))

    def percentile(self, percent: int) -> int:
        """The smallest length that at least ``percent`` of the documents do not exceed (nearest rank)."""
        seen = 0
        for length, number in self.counts.items():
            seen += number
            if seen * 100 >= percent * self.documents:
                return length
        raise ValueError(f"{percent} is no percentage")

    def histogram(self) -> list[Bucket]:
        """Documents by powers of two, from the shortest document's bucket to the longest's; 0 tokens stand alone."""
        documents: Counter[int] = Counter()
        tokens: Counter[int] = Counter()
        for length, number in self.counts.items():
            documents[length.bit_length()] += number
            tokens[length.bit_length()] += length * number
        return [
            Bucket(
                first_tokens=1 << (bits - 1) if bits else 0,
                last_tokens=(1 << bits) - 1,
                documents=documents[bits],
                tokens=tokens[bits],
            )
            for bits in range(min(documents), max(documents) + 1)
        ]

    def cuts(self, question: Question) -> list[Cut]:
        """What each asked ``max_seq_length`` does, shortest first."""
        size = question.per_device_train_batch_size
        padding = Padding(self.counts, size)
        lengths = sorted(set(question.max_seq_lengths)) or usual_lengths(self.longest)
        return [self._cut(length, padding, size) for length in lengths]

    def _cut(self, max_seq_length: int, padding: Padding, batch_size: int) -> Cut:
        longer = [(length, number) for length, number in self.counts.items() if length > max_seq_length]
        lost = sum((length - max_seq_length) * number for length, number in longer)
        rows = packed(self.counts, max_seq_length)
        return Cut(
            max_seq_length=max_seq_length,
            documents_cut=sum(number for _, number in longer),
            tokens_lost=lost,
            tokens_kept=self.tokens - lost,
            batches=padding.batches,
            padding_tokens=padding.expected_tokens(max_seq_length),
            packed=rows,
            packed_batches=-(-rows.rows // batch_size),
        )

    def recommended(self, cuts: Sequence[Cut], max_cut_percent: float) -> Cut | None:
        """The shortest of these that cuts at most so many percent of the documents, and of the tokens."""
        for cut in cuts:
            documents, tokens = cut.documents_cut * 100, cut.tokens_lost * 100
            if documents <= max_cut_percent * self.documents and tokens <= max_cut_percent * self.tokens:
                return cut
        return None

    def report(self, question: Question) -> Report:
        """Everything that is told of the lengths."""
        cuts = self.cuts(question)
        recommended = self.recommended(cuts, question.max_cut_percent)
        return Report(lengths=self, question=question, cuts=tuple(cuts), recommended=recommended)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """An answer: the lengths, the cuts that were asked for, and the one to choose (None where all cut too much)."""

    lengths: TokenLengths
    question: Question
    cuts: tuple[Cut, ...]
    recommended: Cut | None

    @property
    def percentiles(self) -> dict[str, int]:
        """``p50``, ``p90``, ``p95``, ``p99`` and ``max``, in tokens."""
        ranks = {f"p{percent}": self.lengths.percentile(percent) for percent in PERCENTILES}
        return {**ranks, "max": self.lengths.longest}

    def to_json(self) -> dict[str, Any]:
        """The answer as JSON values; ``max_seq_length.nothing_cut`` is the longest document's own length."""
        return {
            "documents": self.lengths.documents,
            "tokens": self.lengths.tokens,
            "percentiles": self.percentiles,
            "histogram": [bucket.to_json() for bucket in self.lengths.histogram()],
            "cuts": [cut.to_json() for cut in self.cuts],
            "max_seq_length": {
                "recommended": self.recommended.max_seq_length if self.recommended else None,
                "nothing_cut": self.lengths.longest,
            },
            "max_cut_percent": self.question.max_cut_percent,
            "per_device_train_batch_size": self.question.per_device_train_batch_size,
        }


def usual_lengths(longest: int) -> list[int]:
    """`SHORTEST_USUAL` and its doublings below the longest document, and then its own length in full `ROUNDED_TO`s."""
    lengths = [SHORTEST_USUAL]
    while lengths[-1] < longest:
        lengths.append(2 * lengths[-1])
    whole = max(-(-longest // ROUNDED_TO), 1) * ROUNDED_TO
    return [*lengths[:-1], min(lengths[-1], whole)]
