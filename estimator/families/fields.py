"""Checked access to the keys of a config: each value is of its type and in a range that a model can have."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from estimator.errors import ArchitectureError
from estimator.rules import shown

MAX_WIDTH = 2**24
MAX_VOCABULARY = 2**27
MAX_LAYERS = 10_000
MAX_HEADS = 2**16
MAX_EXPERTS = 2**16
MAX_POSITIONS = 2**31
MAX_NUMBER = 1e18


class Config:
    """A config object, or an object inside one; ``prefix`` is its dotted name, for messages."""

    __slots__ = ("_data", "_prefix")

    def __init__(self, data: Mapping[str, Any], prefix: str = "") -> None:
        self._data = data
        self._prefix = prefix

    def has(self, key: str) -> bool:
        """Whether the key is there and not null."""
        return self._data.get(key) is not None

    def names(self, key: str) -> bool:
        """Whether the key is there, null or not."""
        return key in self._data

    def raw(self, key: str) -> object:
        """The value as it is, unchecked; None where the key is absent."""
        return self._data.get(key)

    def dimension(self, key: str, maximum: int = MAX_WIDTH, *, minimum: int = 1) -> int:
        """A whole number that must be there. Raises ArchitectureError naming the key."""
        if not self.has(key):
            raise ArchitectureError("is required", key=self.path(key), allowed=_whole(minimum, maximum))
        return self._integer(key, minimum, maximum)

    def integer(self, key: str, default: int, maximum: int = MAX_WIDTH, *, minimum: int = 1) -> int:
        """A whole number, or the class's default where the key is absent or null."""
        return self._integer(key, minimum, maximum) if self.has(key) else default

    def number(self, key: str, default: float) -> float:
        """A finite number above zero, or the class's default where the key is absent or null."""
        if not self.has(key):
            return default
        value = self._data[key]
        right_type = isinstance(value, int | float) and not isinstance(value, bool)
        if not right_type or not 0 < value <= MAX_NUMBER or not isfinite(value):
            raise self.refused(key, "a finite number above 0")
        return float(value)

    def nullable_number(self, key: str, default: float | None) -> float | None:
        """A number above zero or an explicit null; the class's default only where the key is absent."""
        if not self.names(key):
            return default
        return self.number(key, 0.0) if self.has(key) else None

    def nullable_integer(self, key: str, default: int | None, maximum: int) -> int | None:
        """A whole number or an explicit null; the class's default only where the key is absent."""
        if not self.names(key):
            return default
        return self._integer(key, 1, maximum) if self.has(key) else None

    def flag(self, key: str, default: bool) -> bool:
        """true or false, or the class's default where the key is absent or null."""
        value = self._data.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refused(key, "true, false")
        return value

    def text(self, key: str, default: str, allowed: tuple[str, ...]) -> str:
        """One of the allowed strings, or the default where the key is absent or null."""
        value = self._data.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or value not in allowed:
            raise self.refused(key, ", ".join(allowed))
        return value

    def strings(self, key: str, longest: int = 100_000) -> tuple[str, ...] | None:
        """A list of strings, or None where the key is absent or null."""
        value = self._data.get(key)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or len(value) > longest or not all(isinstance(v, str) for v in value):
            raise self.refused(key, f"a list of at most {longest} strings")
        return tuple(value)

    def indices(self, key: str) -> frozenset[int]:
        """A list of layer numbers, empty where the key is absent or null."""
        value = self._data.get(key)
        if value is None:
            return frozenset()
        whole = isinstance(value, list | tuple) and all(
            isinstance(v, int) and not isinstance(v, bool) and 0 <= v < MAX_LAYERS for v in value
        )
        if not whole:
            raise self.refused(key, "a list of layer numbers")
        return frozenset(value)

    def inside(self, key: str) -> Config | None:
        """The object under a key, or None where it is absent or null."""
        value = self._data.get(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self.refused(key, "an object")
        return Config(value, self.path(key) + ".")

    def refused(self, key: str, allowed: str) -> ArchitectureError:
        """The error that this key's value deserves."""
        return ArchitectureError(f"{shown(self._data.get(key))} is not accepted", key=self.path(key), allowed=allowed)

    def path(self, key: str) -> str:
        """The key's dotted name from the top of the config."""
        return self._prefix + key

    def _integer(self, key: str, minimum: int, maximum: int) -> int:
        value = self._data[key]
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            raise self.refused(key, _whole(minimum, maximum))
        return value


def _whole(minimum: int, maximum: int) -> str:
    return f"a whole number from {minimum} to {maximum}"
