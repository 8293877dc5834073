"""What of an OpenAPI document a newer one breaks.

A request that was well-formed must stay so, and an answer must stay one that its readers understand: what is sent may
only be allowed more, what is answered may only be promised more. Whatever keyword is not known here counts as broken
when it changes, so that a change is never waved through because nobody thought of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from scripts.contract.schemas import ANYTHING, Comparison, Direction

Json = Mapping[str, Any]
METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")


class Break(NamedTuple):
    """A promise that is not kept. ``where``: the operation and the place in it; ``what``: what has changed."""

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def breaks(old: Json, new: Json) -> tuple[Break, ...]:
    """Everything that works with ``old`` and may not with ``new``, each once, in the documents' order."""
    found: dict[Break, None] = {}
    compare = Comparison(old, new, Direction.REQUEST), Comparison(old, new, Direction.RESPONSE)
    for path, operations in old["paths"].items():
        for method in METHODS:
            if method in operations:
                newer = new["paths"].get(path, {}).get(method)
                place = f"{method.upper()} {path}"
                found.update(dict.fromkeys(_operation(place, operations[method], newer, *compare)))
    return tuple(found)


def _operation(where: str, old: Json, new: Json | None, asked: Comparison, answered: Comparison) -> Iterator[Break]:
    if new is None:
        yield Break(where, "is removed")
        return
    yield from _scope(where, old, new)
    yield from _parameters(where, old, new, asked)
    yield from _body(where, old, new, asked)
    yield from _responses(where, old, new, answered)


def _scope(where: str, old: Json, new: Json) -> Iterator[Break]:
    """A key that was enough stays enough."""
    before, now = old.get("x-scope"), new.get("x-scope")
    if now is not None and now != before:
        yield Break(where, f"needs a key with the scope {now}, and not {before or 'none'}")


def _parameters(where: str, old: Json, new: Json, compare: Comparison) -> Iterator[Break]:
    before = {(one["in"], one["name"]): one for one in old.get("parameters", ())}
    now = {(one["in"], one["name"]): one for one in new.get("parameters", ())}
    for key, parameter in before.items():
        place = f"{where} {key[0]} {key[1]}"
        if key not in now:
            yield Break(place, "is removed")
            continue
        if now[key].get("required", False) and not parameter.get("required", False):
            yield Break(place, "has become required")
        yield from _schema(place, parameter.get("schema", ANYTHING), now[key].get("schema", ANYTHING), compare)
    for key in now.keys() - before.keys():
        if now[key].get("required", False):
            yield Break(f"{where} {key[0]} {key[1]}", "is new and required")


def _body(where: str, old: Json, new: Json, compare: Comparison) -> Iterator[Break]:
    before, now = old.get("requestBody"), new.get("requestBody")
    place = f"{where} body"
    if now is not None and now.get("required", False) and not (before or {}).get("required", False):
        yield Break(place, "has become required")
    if before is None:
        return
    if now is None:
        yield Break(place, "is no longer read")
        return
    yield from _contents(place, before, now, compare)


def _responses(where: str, old: Json, new: Json, compare: Comparison) -> Iterator[Break]:
    for status, response in old.get("responses", {}).items():
        place = f"{where} {status}"
        if status not in new.get("responses", {}):
            yield Break(place, "is removed")
        else:
            yield from _contents(place, response, new["responses"][status], compare)


def _contents(place: str, old: Json, new: Json, compare: Comparison) -> Iterator[Break]:
    for media_type, content in old.get("content", {}).items():
        newer = new.get("content", {}).get(media_type)
        if newer is None:
            yield Break(place, f"is no longer {media_type}")
        else:
            yield from _schema(place, content.get("schema", ANYTHING), newer.get("schema", ANYTHING), compare)


def _schema(place: str, old: Any, new: Any, compare: Comparison) -> Iterator[Break]:
    for path, what in compare.faults(old, new):
        yield Break(f"{place} {path}" if path else place, what)
