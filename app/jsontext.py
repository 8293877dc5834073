"""Strict reading of JSON: what two readers could take differently is refused, and so is what would exhaust
one.

Beside the syntax, RFC 8259's "interoperable" rules are enforced: unique names, finite numbers, UTF-8. One
reader serves the command line's files and the service's bodies.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, NoReturn

from estimator.errors import CtxplanError
from estimator.rules import shorten

MAX_DEPTH = 64
MAX_DOCUMENT_BYTES = 2**20


class UnreadableJson(CtxplanError):
    """Bytes that are not one JSON document."""

    code = "invalid-json"


class _NotFinite(ValueError):
    """A number that no float can hold; carries its text."""


def read_json(body: bytes) -> Any:
    """Parse one JSON document.

    Raises:
        UnreadableJson: not UTF-8, a syntax error (with its line and column), a name given twice, a number
        that is not finite or
            is absurdly long, or nesting deeper than `MAX_DEPTH`.
    """
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UnreadableJson(f"not UTF-8: byte {error.start} cannot be read") from None
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise UnreadableJson(f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except _NotFinite as error:
        literal = str(error)
        raise UnreadableJson(f"{literal} is not a finite number", key=_key_of(text, literal)) from None
    except RecursionError:
        _refuse_depth()
    except ValueError:
        _refuse_digits(text)
    # Counting brackets is a bound on the depth that costs microseconds; only a document that passes it is
    # walked.
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise UnreadableJson("is given twice", key=shorten(key), allowed="each key once")
            seen.add(key)
    return value


def _finite(literal: str) -> float:
    value = float(literal)
    if math.isinf(value):
        raise _NotFinite(shorten(literal))
    return value


def _constant(literal: str) -> NoReturn:
    raise _NotFinite(literal)


def _check_depth(value: Any) -> None:
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH + 1):
        below: list[Any] = []
        for item in level:
            if isinstance(item, Mapping):
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
        if not below:
            return
        level = below
    _refuse_depth()


def _refuse_depth() -> NoReturn:
    raise UnreadableJson("nested too deeply", allowed=f"at most {MAX_DEPTH} levels") from None


def _refuse_digits(text: str) -> NoReturn:
    digits = re.search(r"-?\d{640,}", text)
    key = _key_of(text, digits.group()) if digits else None
    raise UnreadableJson(
        "a number has too many digits", key=key, allowed="numbers of at most a few hundred digits"
    ) from None


def _key_of(text: str, literal: str) -> str | None:
    """The name right before a refused literal, so that the message can point at it."""
    before = text[: text.find(literal.rstrip("…"))]
    found = re.search(r'"([^"\\]{1,80})"\s*:[\s\[]*$', before[-200:])
    return shorten(found.group(1)) if found else None


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_constant)
