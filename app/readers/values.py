"""What a value in a config may be. The rules are the job's own; these add what launchers take beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from estimator.errors import JobError
from estimator.rules import Choice, Integer, Number, Rule, Schema, shown

TRUE, FALSE = frozenset({"true", "yes", "on", "y", "t", "1"}), frozenset({"false", "no", "off", "n", "f", "0"})
WHOLE = re.compile(r"[+-]?\d+(_\d+)*(\.0*)?")
"""Text that pydantic takes for an integer."""
LONGEST_LIST = 256


class Flag(NamedTuple):
    """True or false; as text or 0 and 1 as well where ``lax``, as pydantic has it."""

    lax: bool = False

    def parse(self, key: str, value: Any) -> bool:
        if isinstance(value, bool):
            return value
        word = str(value).strip().lower() if self.lax and isinstance(value, str | int) else ""
        if word in TRUE | FALSE:
            return word in TRUE
        raise JobError(f"{shown(value)} is not accepted", key=key, allowed="true or false")

    def schema(self) -> Schema:
        return {"type": "boolean"}


class Lax(NamedTuple):
    """A number that may be written as text, or with a fraction of zero, as pydantic has it."""

    rule: Integer | Number

    def parse(self, key: str, value: Any) -> Any:
        if isinstance(value, str):
            text = value.strip()
            if isinstance(self.rule, Integer) and not WHOLE.fullmatch(text):
                # YAML 1.1 takes 1e4 for text, and no launcher takes that text for a number.
                raise JobError(f"{shown(value)} is text", key=key, allowed="a whole number, in digits")
            value = _number(text, value)
        if isinstance(self.rule, Integer) and isinstance(value, float) and value.is_integer():
            value = int(value)
        return self.rule.parse(key, value)

    def schema(self) -> Schema:
        return self.rule.schema()


class NameList(NamedTuple):
    """Names as a list, or as one text that commas part; ``shorthands`` stand for themselves, by what they become."""

    shorthands: Mapping[str, str] = {}

    def parse(self, key: str, value: Any) -> tuple[str, ...] | str:
        names = value.split(",") if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or len(names) > LONGEST_LIST:
            raise JobError(f"{shown(value)} is not accepted", key=key, allowed=self._allowed())
        if not all(isinstance(name, str) for name in names):
            raise JobError("is not a list of names", key=key, allowed=self._allowed())
        stripped = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
        return self.shorthands.get(stripped[0], stripped) if len(stripped) == 1 else stripped

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}

    def _allowed(self) -> str:
        return " or ".join(["a list of names", *self.shorthands])


class Word(NamedTuple):
    """One of some words, whatever their case where ``lax``; true and false for themselves."""

    words: tuple[str | bool, ...]
    lax: bool = False

    def parse(self, key: str, value: Any) -> str | bool:
        asked = value.strip().lower() if self.lax and isinstance(value, str) else value
        for word in self.words:
            if asked is word or (isinstance(word, str) and asked == word):
                return word
        return Choice(self.words).parse(key, value)

    def schema(self) -> Schema:
        return {"enum": list(self.words)}


class Anything(NamedTuple):
    """A value that is looked at and never kept."""

    def parse(self, key: str, value: Any) -> Any:
        return value

    def schema(self) -> Schema:
        return {}


def names(text: str) -> frozenset[str]:
    """Names that blanks part, as a set."""
    return frozenset(text.split())


def _number(text: str, otherwise: Any) -> Any:
    for kind in (int, float):
        try:
            return kind(text) if len(text) < 40 else otherwise
        except ValueError:
            continue
    return otherwise


POSITIVE = Integer(1, 65_536)
LENGTH = Integer(1, 2**27)
RANK = Integer(1, 8192)
DROPOUT = Number(0.0, 0.999)
STEPS = Number(0, 2**40)
UNCHECKED: Rule = Anything()
