"""Hypothesis strategies: good input with something wrong in it, since what is wrong throughout is refused at once."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

Path = tuple[Any, ...]
Write = Callable[[Any], bytes]

NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 2**31, 2**53 + 1, 2**63, 10**40, -(10**400), 0.1, -0.0, 1e308,
    float("inf"), float("nan"),
    "", " ", "0", "-1", "1e400", "true", "null", "nan", "a" * 5000, "\x00", "\ud800", "\u202e", "../../etc/passwd",
    "http://169.254.169.254/", "{{7*7}}", "${jndi:ldap://x}", "9" * 5000, "!!python/object/apply:os.system [id]",
    "1_000", "0x10",
    "12:30:45", "2024-01-01", "=", "<<", "*a", "&a", [], {}, [[]], [{}], {"": {}}, [None] * 300,
    {"a": {"a": {"a": {"a": {}}}}},
)  # fmt: skip
KEYS = ("", "model", "type", "__class__", "__metadata__", "constructor", "0", "a" * 300, "\ud800", "max_seq_length")
NUMBERS = (1, 2, 3, 4, 7, 8, 16, 64, 1000, 65536)
JUNK = (b"\x00", b"\xff", b"\xef\xbb\xbf", b"{", b"}", b"[", b"]", b'"', b"\\", b"\\u", b":", b",", b"\n", b"\t", b"- ",
        b"&a ", b"*a", b"<<: ", b"!!binary ", b"1e9999", b"-", b"9" * 400, b"[" * 200, b"{\"a\":" * 100, b"null",
        b"\xf0\x9f")  # fmt: skip


def wrong(values: Sequence[Any], write: Write) -> st.SearchStrategy[bytes]:
    """Documents with values in the wrong place, and their text with bytes in the wrong place."""
    documents = st.sampled_from(values)
    changed = st.builds(_changed, documents, st.lists(_changes(), min_size=0, max_size=4))
    text = st.builds(lambda value: _written(value, write), changed)
    return st.one_of(text, text, text, broken(text), st.binary(max_size=400))


def broken(text: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Text with bytes taken out, put in, doubled or replaced."""
    place = st.integers(0, 2**16)
    edit = st.tuples(place, st.integers(0, 40), st.one_of(st.sampled_from(JUNK), st.binary(max_size=8)))
    return st.builds(_edited, text, st.lists(edit, min_size=1, max_size=5))


def json_text(value: Any) -> bytes:
    """As JSON that a lax writer would write: NaN, and halves of characters."""
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _changes() -> st.SearchStrategy[tuple[int, str, Any, str]]:
    kinds = st.sampled_from(("nudge", "nudge", "nudge", "replace", "replace", "remove", "add", "double"))
    return st.tuples(st.integers(0, 2**16), kinds, st.sampled_from(NASTY), st.sampled_from(KEYS))


def _changed(value: Any, changes: list[tuple[int, str, Any, str]]) -> Any:
    value = copy.deepcopy(value)
    for place, kind, nasty, key in changes:
        paths = list(_paths(value))
        path = paths[place % len(paths)]
        value = _at(value, path, kind, copy.deepcopy(nasty), key)
    return value


def _at(value: Any, path: Path, kind: str, nasty: Any, key: str) -> Any:
    if not path:
        if kind == "add" and isinstance(value, dict):
            value[key] = nasty
            return value
        return nasty if kind == "replace" else value
    holder = value
    for step in path[:-1]:
        holder = holder[step]
    last = path[-1]
    if kind == "remove":
        del holder[last]
    elif kind == "add" and isinstance(holder[last], dict):
        holder[last][key] = nasty
    elif kind == "nudge":
        holder[last] = _nudged(holder[last], len(key))
    elif kind == "double" and isinstance(holder, list):
        holder.append(holder[last])
    else:
        holder[last] = nasty
    return value


def _nudged(value: Any, by: int) -> Any:
    """Another value of the same type, which may well be right."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return type(value)(NUMBERS[by % len(NUMBERS)])
    return value


def _paths(value: Any, above: Path = ()) -> Iterator[Path]:
    yield above
    children: Any = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in children:
        yield from _paths(child, (*above, key))


def _edited(text: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for place, length, put in edits:
        start = place % (len(text) + 1)
        text = text[:start] + put + text[start + length :]
    return text


def _written(value: Any, write: Write) -> bytes:
    """A value that the format cannot write is written as JSON."""
    try:
        return write(value)
    except Exception:  # yaml's are of several kinds
        return json_text(value)
