"""What the service answers, read strictly: a value of another type is said to be one, and never taken for what it is
not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import httpx

from probes.worker.errors import NotTheService


class Answer:
    """A JSON object, whose values are asked for by what they are to be.

    Attributes:
        document: the whole of it.

    Raises:
        NotTheService: it is no JSON object; and from every method, for a key that is missing or holds something else.
    """

    def __init__(self, response: httpx.Response) -> None:
        self._path = response.url.path
        self._host = response.url.host
        found = json_of(response)
        if not isinstance(found, dict):
            raise NotTheService(f"{self._host} answers without a JSON object", allowed="a ctxplan service's address")
        self.document: Mapping[str, Any] = found

    def number(self, key: str) -> int:
        """A whole number, 0 or more."""
        found = self.document.get(key)
        if isinstance(found, bool) or not isinstance(found, int) or found < 0:
            raise self._other(key, "a whole number of 0 or more")
        return found

    def seconds(self, key: str) -> float:
        """A finite number, 0 or more."""
        found = self.document.get(key)
        if isinstance(found, bool) or not isinstance(found, int | float) or not 0 <= found < math.inf:
            raise self._other(key, "a number of seconds, 0 or more")
        try:
            return float(found)
        except OverflowError:
            raise self._other(key, "a number of seconds, 0 or more") from None

    def text(self, key: str) -> str:
        found = self.document.get(key)
        if not isinstance(found, str):
            raise self._other(key, "a text")
        return found

    def token(self, key: str) -> str:
        """A text that a header can carry."""
        found = self.text(key)
        if not found or not found.isascii() or not found.isprintable() or " " in found:
            raise self._other(key, "printable ASCII without spaces")
        return found

    def flag(self, key: str) -> bool:
        found = self.document.get(key)
        if not isinstance(found, bool):
            raise self._other(key, "true or false")
        return found

    def object(self, key: str) -> dict[str, Any]:
        found = self.document.get(key)
        if not isinstance(found, dict):
            raise self._other(key, "an object")
        return found

    def _other(self, key: str, allowed: str) -> NotTheService:
        # Never the value: it may be the lease's secret.
        kind = type(self.document[key]).__name__ if key in self.document else "nothing"
        return NotTheService(f"{self._host} answers {self._path} with {kind}", key=key, allowed=allowed)


def json_of(response: httpx.Response) -> Any:
    """What a response says in JSON; None where it is none."""
    try:
        return response.json()
    except (ValueError, RecursionError):
        return None
