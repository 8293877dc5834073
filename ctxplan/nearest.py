"""Which known model a name was perhaps meant to be: by the words of a name, and not by its letters alone.

``Qwen/Qwen3-8B-Instruct`` has more letters in common with ``Qwen2.5-7B-Instruct`` than with ``Qwen3-8B``, and is of the
same family, generation and size as the latter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher
from functools import lru_cache
from typing import NamedTuple

LONGEST = 256
LEAST = 0.6
"""Of 1: below it, names have too little in common to be one and the same mistyped."""
ALIKE = 0.75
"""Of 1: two words of letters with less in common are two words."""
SAME_SIZE = 0.95
"""Two numbers of parameters that are as near as that may be one, rounded or mistyped."""
SAME_OWNER = 0.02
PER_LETTER = 1e-4
"""Of two names that say the same, the shorter one."""

_WORD = re.compile(r"[a-z]+|\d+(?:\.\d+)*[a-z]*")
_SIZE = re.compile(r"\d+(?:\.\d+)?[bm]")
_FORMATS = frozenset(
    {"instruct", "it", "chat", "hf", "base", "bnb", "bit", "4bit", "4bits", "8bit", "gguf", "gptq", "awq"}
    | {"bf16", "fp16", "fp8", "dynamic", "unsloth"}
)
"""What a name says of how a model was trained on or stored, beside which model it is."""
_WEIGHT = {"family": 3.0, "size": 3.0, "number": 2.0, "format": 0.5}


class _Word(NamedTuple):
    text: str
    kind: str

    @property
    def weight(self) -> float:
        return _WEIGHT[self.kind]


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like this one; None where none is like it.

    Args:
        name, known: of repositories, with or without an owner, in any case.
    """
    owner, words = _read(name[:LONGEST].lower())
    best, found = LEAST, None
    for one in known:
        its_owner, its_words = _read(one.lower())
        likeness = _likeness(words, its_words)
        likeness += SAME_OWNER * (bool(owner) and owner == its_owner) - PER_LETTER * len(one.rpartition("/")[2])
        if likeness > best:
            best, found = likeness, one
    return found


def _likeness(words: tuple[_Word, ...], others: tuple[_Word, ...]) -> float:
    """The weight of what both say over the weight of all that they say; 0 where they are of no common family, or of two
    sizes."""
    common, families, sizes = 0.0, 0, 0
    left = list(others)
    for word in words:
        score, match = max(((_alike(word, other), other) for other in left), default=(0.0, None))
        if match is None or not score:
            continue
        left.remove(match)
        common += score * (word.weight + match.weight)
        families += match.kind == "family"
        sizes += match.kind == "size"
    states_size = any(word.kind == "size" for word in words)
    if not families or (states_size and not sizes):
        return 0.0
    return common / sum(word.weight for word in (*words, *others))


@lru_cache(maxsize=4096)
def _alike(word: _Word, other: _Word) -> float:
    if word.text == other.text:
        return 1.0
    if word.text.isalpha() and other.text.isalpha():
        shorter, longer = sorted((len(word.text), len(other.text)))
        if shorter <= 2 or 2 * shorter < ALIKE * (shorter + longer):  # as much as the ratio could be
            return 0.0
        ratio = SequenceMatcher(None, word.text, other.text).ratio()
        return ratio if ratio >= ALIKE else 0.0
    if word.kind == "number" and other.kind == "size":
        return 0.8 if other.text[:-1] == word.text else 0.0
    if word.kind == other.kind == "size" and word.text[-1] == other.text[-1]:
        smaller, larger = sorted((float(word.text[:-1]), float(other.text[:-1])))
        return 0.8 if smaller >= SAME_SIZE * larger else 0.0
    if word.kind == other.kind == "number":
        return 0.5 if word.text.partition(".")[0] == other.text.partition(".")[0] else 0.0
    return 0.0


@lru_cache(maxsize=1024)
def _read(name: str) -> tuple[str, tuple[_Word, ...]]:
    owner, _, base = name.rpartition("/")
    return owner, tuple(_Word(text, _kind(text)) for text in _WORD.findall(base))


def _kind(text: str) -> str:
    if text in _FORMATS:
        return "format"
    if text.isalpha():
        return "family"
    return "size" if _SIZE.fullmatch(text) else "number"
