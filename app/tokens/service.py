"""Token lengths for the callers of the service: in a thread, few at once, with tokenizers that are kept."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from threading import Lock
from typing import Any

from app.tokens.question import TokensQuestion
from app.tokens.tokenizer import ModelTokenizer, find_tokenizer, need_tokenizers
from app.turns import TurnsOf
from ctxplan.token_lengths import TokenLengths

AT_ONCE = 2
"""Questions that are reckoned at once; each uses every core already where it tokenizes."""
LOOKUPS_AT_ONCE = 8
MOST_KEPT = 4
"""Tokenizers in memory; a large one takes 100 MB."""


class TokenCounts:
    """Answers questions about token lengths.

    Args:
        offline: never ask the Hub for a tokenizer. allow_local: read one from a path of this machine.
        turns: makes turns for work of a name.
    """

    def __init__(self, *, offline: bool, allow_local: bool, turns: TurnsOf) -> None:
        self._offline = offline
        self._allow_local = allow_local
        self._work = turns("tokens", at_once=AT_ONCE)
        self._lookups = turns("lookups", at_once=LOOKUPS_AT_ONCE)
        self._kept = _Kept()

    async def answer(self, asked: TokensQuestion) -> dict[str, Any]:
        """The report as JSON values. Raises CtxplanError; Overloaded where too many wait already."""
        file = await self._lookups.in_thread(self._find, asked.tokenizer) if asked.texts else None
        return await self._work.in_thread(self._report, asked, file)

    def _find(self, name: str) -> Path:
        need_tokenizers()
        return find_tokenizer(name, offline=self._offline, allow_local=self._allow_local)

    def _report(self, asked: TokensQuestion, file: Path | None) -> dict[str, Any]:
        lengths = asked.lengths if file is None else self._counted(asked, file)
        return {
            **TokenLengths.of(lengths).report(asked.question).to_json(),
            "tokenizer": asked.tokenizer or None,
        }

    def _counted(self, asked: TokensQuestion, file: Path) -> list[int]:
        tokenizer = self._kept.get(file, asked.tokenizer)
        special = asked.add_special_tokens
        if special is None:
            special = tokenizer.adds_special_tokens(asked.texts[0])
        return tokenizer.lengths(asked.texts, add_special_tokens=special)


class _Kept:
    """The last tokenizers that were used, each as long as its file stays as it was."""

    def __init__(self) -> None:
        self._tokenizers: OrderedDict[tuple[Path, int, int], ModelTokenizer] = OrderedDict()
        self._lock = Lock()

    def get(self, file: Path, name: str) -> ModelTokenizer:
        """Raises UnknownModel where the file is no tokenizer."""
        key = _version_of(file)
        # Loading holds the lock: two callers of a new tokenizer would otherwise load it twice, side by side.
        with self._lock:
            if key not in self._tokenizers:
                self._tokenizers[key] = ModelTokenizer(file, name)
                while len(self._tokenizers) > MOST_KEPT:
                    self._tokenizers.popitem(last=False)
            self._tokenizers.move_to_end(key)
            return self._tokenizers[key]


def _version_of(file: Path) -> tuple[Path, int, int]:
    try:
        state = file.stat()
    except OSError:
        return file, 0, 0
    return file, state.st_mtime_ns, state.st_size
