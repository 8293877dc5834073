"""Files in, token lengths out: the next batch is read while the tokenizer works on the last ones."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from app.tokens.fields import Fields, choose_fields
from app.tokens.sources import BadRow, Source
from app.tokens.tokenizer import ModelTokenizer
from ctxplan.token_lengths import DocumentsError

AT_ONCE = 2
"""Batches that are encoded at once: while one is handed over or counted, the other keeps every core at work."""
LEAST_BATCH, BATCH_PER_CORE = 2**20, 2**17
"""Characters of a batch: enough that every core has several documents to take, and little beside the process itself."""
MOST_DOCUMENTS = 2**14

PLAIN_CONVERSATIONS = (
    "conversations are counted by their contents alone (the tokenizer has no chat template, or Jinja2 is not "
    "installed): what a template writes around them comes on top"
)


class Batch(NamedTuple):
    """Documents that are encoded together."""

    texts: list[str]
    add_special_tokens: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How documents are read.

    Attributes:
        columns: those that are the document; empty to find them. skip_bad: rows that hold no document and may be left
            out before that is an error.
        add_special_tokens: None for a trainer's own rule (`ModelTokenizer.adds_special_tokens`). A chat template
            writes them itself.
    """

    columns: tuple[str, ...] = ()
    add_special_tokens: bool | None = None
    skip_bad: int = 0


class Reading:
    """Documents of files, in batches.

    Attributes:
        skipped, fields, notes: what was found, once it has been read.
    """

    def __init__(self, sources: Sequence[Source], tokenizer: ModelTokenizer, options: Options) -> None:
        self.sources = sources
        self.tokenizer = tokenizer
        self.skipped = 0
        self.fields: list[str] = []
        self.notes: list[str] = []
        self._options = options
        self._finished_bytes = 0
        self._current: Source | None = None

    def done_bytes(self) -> int:
        """How much of the files has been read."""
        return self._finished_bytes + (self._current.done_bytes() if self._current else 0)

    def batches(self) -> Iterator[Batch]:
        """The documents, in order. Raises DocumentsError, which names the file and the row."""
        most = max(LEAST_BATCH, BATCH_PER_CORE * cores())
        texts: list[str] = []
        special, held = True, 0
        for text, wants_special in self._documents():
            if texts and (wants_special is not special or held >= most or len(texts) >= MOST_DOCUMENTS):
                yield Batch(texts, special)
                texts, held = [], 0
            special = wants_special
            texts.append(text)
            held += len(text)
        if texts:
            yield Batch(texts, special)

    def _documents(self) -> Iterator[tuple[str, bool]]:
        for source in self.sources:
            self._current = source
            yield from self._documents_of(source)
            self._current = None
            self._finished_bytes += source.size_bytes

    def _documents_of(self, source: Source) -> Iterator[tuple[str, bool]]:
        fields, special = self._fields_of(source, source.peek()), None
        for number, raw in source.rows(fields.needed if fields else None):
            try:
                row = source.parse(raw)
                fields = fields or self._fields_of(source, row)
                text: str = fields.text_of(row) if fields else row
                if not text.isascii():
                    _check_encodable(text)
            except BadRow as error:
                self._skip(source.where(number), error)
                continue
            if special is None:
                special = self._special(fields, text)
            yield text, special

    def _fields_of(self, source: Source, row: Any) -> Fields | None:
        """By the first row of a file; None for text, and while no row is known."""
        if source.is_text or row is None:
            return None
        fields = choose_fields(row, self._options.columns, self.tokenizer.chat_template, source.name)
        self._note(self.fields, ",".join(fields.columns))
        if fields.is_conversation and fields.template is None:
            self._note(self.notes, PLAIN_CONVERSATIONS)
        return fields

    def _special(self, fields: Fields | None, first_text: str) -> bool:
        if fields and fields.is_conversation and fields.template:
            return False
        if self._options.add_special_tokens is not None:
            return self._options.add_special_tokens
        return self.tokenizer.adds_special_tokens(first_text)

    def _skip(self, where: str, error: BadRow) -> None:
        if self.skipped >= self._options.skip_bad:
            raise DocumentsError(f"{where}: {error}") from None
        self.skipped += 1

    @staticmethod
    def _note(notes: list[str], note: str) -> None:
        if note not in notes:
            notes.append(note)


def count(
    batches: Iterable[Batch],
    tokenizer: ModelTokenizer,
    on_batch: Callable[[int, int], None] = lambda documents, tokens: None,
) -> Counter[int]:
    """How many documents have each length. Raises DocumentsError.

    on_batch: told, from this thread, how many documents and tokens have been counted in all.
    """
    counts: Counter[int] = Counter()
    documents = tokens = 0

    def settle(done: Future[list[int]]) -> None:
        nonlocal documents, tokens
        lengths = done.result()
        counts.update(lengths)
        documents, tokens = documents + len(lengths), tokens + sum(lengths)
        on_batch(documents, tokens)

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="ctxplan-tokens") as pool:
        pending: deque[Future[list[int]]] = deque()
        for texts, special in batches:
            pending.append(pool.submit(tokenizer.lengths, texts, add_special_tokens=special))
            if len(pending) > AT_ONCE:
                settle(pending.popleft())
        while pending:
            settle(pending.popleft())
    return counts


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _check_encodable(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRow("holds half of a surrogate pair, which is no text") from None
