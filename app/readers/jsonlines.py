"""The line of every key of a JSON document, which the standard library's reader does not keep."""

from __future__ import annotations

import json
import re
from bisect import bisect_left

Path = tuple[str, ...]
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]', re.DOTALL)


def key_lines(text: str) -> dict[Path, int]:
    """The line of every key, counted from 1, by its path; an item of a list is named by its index.

    Args:
        text: a document that was found to be JSON.
    """
    breaks = [found.start() for found in re.finditer("\n", text)]
    lines: dict[Path, int] = {}
    path: list[str] = []
    inside: list[str] = []
    awaits_key = False
    for token in _TOKEN.finditer(text):
        kind = token.group()
        if kind in "{[":
            inside.append(kind)
            path.append("0" if kind == "[" else "")
            awaits_key = kind == "{"
        elif kind in "}]":
            inside.pop()
            path.pop()
            awaits_key = False
        elif kind == ",":
            awaits_key = inside[-1] == "{"
            if not awaits_key:
                path[-1] = str(int(path[-1]) + 1)
        elif kind != ":" and awaits_key:
            path[-1] = json.loads(kind)
            lines[tuple(path)] = bisect_left(breaks, token.start()) + 1
            awaits_key = False
    return lines
