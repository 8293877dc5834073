"""What a JSON value may be: each rule checks a value, names the key when it refuses, and can state itself as JSON
Schema.

One table of rules therefore serves the command line, the HTTP service and its OpenAPI document.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from estimator.errors import JobError

Schema = dict[str, Any]


LONGEST_HINTED = 200
"""A longer string is no slip of the keyboard, and is not compared with the known ones."""


class Rule(Protocol):
    """Checks one JSON value."""

    def parse(self, key: str, value: Any) -> Any:
        """Return the value as the job keeps it. Raises JobError naming ``key``."""

    def schema(self) -> Schema:
        """State the rule as JSON Schema."""


class Integer(NamedTuple):
    """A whole number from ``minimum`` to ``maximum``; 2.0 and true are refused."""

    minimum: int
    maximum: int

    def parse(self, key: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not self.minimum <= value <= self.maximum:
            raise _refused(key, value, f"a whole number from {self.minimum} to {self.maximum}")
        return value

    def schema(self) -> Schema:
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}


class Number(NamedTuple):
    """A finite number from ``minimum`` to ``maximum``."""

    minimum: float
    maximum: float

    def parse(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.minimum <= value <= self.maximum:
            raise _refused(key, value, f"a number from {self.minimum:g} to {self.maximum:g}")
        return value

    def schema(self) -> Schema:
        return {"type": "number", "minimum": self.minimum, "maximum": self.maximum}


class Choice(NamedTuple):
    """One of a fixed set of JSON scalars (strings, true and false)."""

    values: tuple[str | bool, ...]

    def parse(self, key: str, value: Any) -> str | bool:
        for allowed in self.values:
            if value is allowed or (isinstance(value, str) and value == allowed):
                return allowed
        listed = ", ".join(shown(v) for v in self.values)
        raise JobError(f"{shown(value)} is not accepted{hint(value, self.values)}", key=key, allowed=listed)

    def schema(self) -> Schema:
        return {"enum": list(self.values)}


class Text(NamedTuple):
    """A string of one to ``longest`` characters, none of them a control character."""

    longest: int = 512

    def parse(self, key: str, value: Any) -> str:
        if not isinstance(value, str) or not 1 <= len(value) <= self.longest or not value.isprintable():
            raise _refused(key, value, f"a string of 1 to {self.longest} printable characters")
        return value

    def schema(self) -> Schema:
        return {"type": "string", "minLength": 1, "maxLength": self.longest}


class Names(NamedTuple):
    """A list of distinct strings, or one of ``shorthands``, each a string that stands for a list."""

    longest: int = 64
    shorthands: tuple[str, ...] = ()
    may_be_empty: bool = True

    def parse(self, key: str, value: Any) -> tuple[str, ...] | str:
        if isinstance(value, str) and value in self.shorthands:
            return value
        if not isinstance(value, list | tuple) or len(value) > self.longest or (not value and not self.may_be_empty):
            raise _refused(key, value, self._allowed())
        item = Text(128)
        return tuple(dict.fromkeys(item.parse(f"{key}[{i}]", name) for i, name in enumerate(value)))

    def schema(self) -> Schema:
        least = 0 if self.may_be_empty else 1
        listed: Schema = {"type": "array", "items": Text(128).schema(), "maxItems": self.longest, "minItems": least}
        return {"anyOf": [listed, {"enum": list(self.shorthands)}]} if self.shorthands else listed

    def _allowed(self) -> str:
        least = "" if self.may_be_empty else "non-empty "
        short = "".join(f' or "{s}"' for s in self.shorthands)
        return f"a {least}list of at most {self.longest} names{short}"


class Optional(NamedTuple):
    """The rule's value, or null."""

    rule: Rule

    def parse(self, key: str, value: Any) -> Any:
        return None if value is None else self.rule.parse(key, value)

    def schema(self) -> Schema:
        return {"anyOf": [self.rule.schema(), {"type": "null"}]}


def parse_object(rules: Mapping[str, Rule], data: Any, *, what: str, required: frozenset[str]) -> dict[str, Any]:
    """Check an object against one rule a key.

    Raises:
        JobError: not an object, an unknown key (with the nearest known one), a missing key, or a value its rule
        refuses.
    """
    if not isinstance(data, Mapping):
        raise JobError(f"{what} must be a JSON object, got {shown(data)}", allowed="an object")
    for key in data:
        if key not in rules:
            raise JobError(
                f"unknown key{hint(key, tuple(rules))}", key=shorten(str(key)), allowed="the keys of " + what
            )
    for key in sorted(required - data.keys()):
        raise JobError("is required", key=key, allowed="a value")
    return {key: rules[key].parse(key, value) for key, value in data.items()}


def _refused(key: str, value: Any, allowed: str) -> JobError:
    return JobError(f"{shown(value)} is not accepted", key=key, allowed=allowed)


def shown(value: Any) -> str:
    """A value as JSON would write it, cut to a length that a message can carry."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, str):
        return f'"{shorten(value)}"'
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return f"a list of {len(value)}"
    return shorten(repr(value)) if not isinstance(value, int) or abs(value) < 10**40 else "a number of over 40 digits"


def shorten(text: str, longest: int = 80) -> str:
    """The text, cut with an ellipsis; control characters are escaped so that it stays on one line."""
    cut = text if len(text) <= longest else text[: longest - 1] + "…"
    return cut if cut.isprintable() else cut.encode("unicode_escape").decode("ascii")


def hint(value: Any, known: tuple[Any, ...]) -> str:
    """`; did you mean "x"?` where a known string is near, else nothing."""
    close = near(value, known)
    return f'; did you mean "{close}"?' if close else ""


def near(value: Any, known: tuple[Any, ...]) -> str | None:
    """The known string that is nearest, None where none is near. Two neighbouring letters swapped are the nearest
    slip: `modle` is "model", though it has more letters in a row in common with "mode"."""
    from difflib import get_close_matches  # only a refusal needs it, and it costs an import

    if not isinstance(value, str) or len(value) > LONGEST_HINTED:
        return None
    names = [k for k in known if isinstance(k, str)]
    swapped = (k for k in names if _is_swapped(value, k))
    return next(swapped, None) or next(iter(get_close_matches(value, names, n=1)), None)


def _is_swapped(text: str, other: str) -> bool:
    """Whether two neighbouring letters changed places, and nothing else."""
    if len(text) != len(other):
        return False
    apart = [i for i, (one, its) in enumerate(zip(text, other, strict=True)) if one != its]
    if len(apart) != 2 or apart[1] != apart[0] + 1:
        return False
    first, second = apart
    return text[first] == other[second] and text[second] == other[first]
