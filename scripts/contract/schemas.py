"""Whether one JSON Schema may take another's place.

In a request every value that the old one allows must be allowed by the new one; in a response every value that the new
one allows must be one that the old one's readers know. Both are one question, whether ``narrow`` lies within ``wide``,
asked the other way round. Objects in responses may gain keys.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

Fault = tuple[str, str]
"""Where in the schema, as a path of keys, and what has changed."""

SAID_ONLY = frozenset({"title", "description", "examples", "example", "deprecated", "readOnly", "writeOnly", "$defs"})
"""Keywords that allow and forbid nothing."""
LOWER = ("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties")
UPPER = ("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties")
JUDGED = frozenset(
    {"$ref", "type", "enum", "const", "anyOf", "oneOf", "properties", "required", "additionalProperties", "items"}
    | {"default", *LOWER, *UPPER}
)
MISSING = object()
ANYTHING: Mapping[str, Any] = {}


class Direction(Enum):
    """Whose schema it is: what is sent to the service, or what it answers."""

    REQUEST = "request"
    RESPONSE = "response"


class Comparison:
    """Compares schemas of two documents, each with its own ``#/components``."""

    def __init__(self, old: Mapping[str, Any], new: Mapping[str, Any], direction: Direction) -> None:
        self._old = old
        self._new = new
        self._is_request = direction is Direction.REQUEST
        # By the identities of two schemas, which are those of the documents' own parts; what is being compared has none
        # yet, so that a schema that holds itself is compared once.
        self._known: dict[tuple[int, int], list[Fault]] = {}

    def faults(self, old: Any, new: Any, path: str = "") -> list[Fault]:
        """What keeps the new schema from taking the old one's place. Empty where nothing does."""
        pair = (id(old), id(new))
        if pair not in self._known:
            self._known[pair] = []
            self._known[pair] = list(self._compared(_resolved(old, self._old), _resolved(new, self._new), ""))
        return [(_joined(path, below), what) for below, what in self._known[pair]]

    def _compared(self, old: Any, new: Any, path: str) -> Iterator[Fault]:
        if old == new and not _has_reference(old):
            return
        if self._is_request and "default" in old and new.get("default", MISSING) != old["default"]:
            yield path, f"has no longer the default {old['default']!r}"
        before, now = self._alternatives(old, self._old), self._alternatives(new, self._new)
        if len(before) == 1 and len(now) == 1:
            yield from self._one(before[0], now[0], path)
            return
        # A request: each old alternative has a new one to go to. A response: each new one is an old one.
        each, among = (before, now) if self._is_request else (now, before)
        for alternative in each:
            tried = [self._pair(alternative, other, path) for other in among]
            if all(tried):
                same_type = [
                    faults for faults, other in zip(tried, among, strict=True) if _type(other) == _type(alternative)
                ]
                verb = "is no longer allowed" if self._is_request else "is a new kind of value"
                yield from min(same_type, key=len) if same_type else [(path, f"{_shown(alternative)} {verb}")]

    def _pair(self, alternative: Any, other: Any, path: str) -> list[Fault]:
        old, new = (alternative, other) if self._is_request else (other, alternative)
        return list(self._one(old, new, path))

    def _alternatives(self, schema: Any, document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        """A union as the list of what it is a union of; `type` may be a list as well, and an enum is one value each."""
        schema = _resolved(schema, document)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                rest = {key: value for key, value in schema.items() if key not in (keyword, *SAID_ONLY, "default")}
                found = [one for each in schema[keyword] for one in self._alternatives(each, document)]
                return [_both(rest, one) for one in found]
        if isinstance(schema.get("type"), list):
            return [{**schema, "type": each} for each in schema["type"]]
        return [schema]

    def _one(self, old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Fault]:
        """Two schemas without alternatives."""
        yield from self._kind(old, new, path)
        yield from self._values(old, new, path)
        yield from self._bounds(old, new, path)
        yield from self._properties(old, new, path)
        yield from self._items(old, new, path)
        yield from _unjudged(old, new, path)

    def _kind(self, old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Fault]:
        narrow, wide = (old, new) if self._is_request else (new, old)
        is_wider = _type(wide) is None or _type(wide) == _type(narrow)
        if not is_wider and not (_type(narrow) == "integer" and _type(wide) == "number"):
            yield path, f"was {_type(old) or 'anything'}, and is {_type(new) or 'anything'}"

    def _values(self, old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Fault]:
        """enum and const."""
        before, now = _listed(old), _listed(new)
        narrow, wide = (before, now) if self._is_request else (now, before)
        if wide is None:
            return
        if narrow is None:
            yield path, "was any value of its type, and is one of a list" if self._is_request else "is no longer listed"
            return
        verb = "is no longer allowed" if self._is_request else "is a new value"
        for value in narrow:
            if value not in wide:
                yield path, f"{value!r} {verb}"

    def _bounds(self, old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Fault]:
        narrow, wide = (old, new) if self._is_request else (new, old)
        for keyword in (*LOWER, *UPPER):
            if keyword not in wide:
                continue
            sign = 1 if keyword in LOWER else -1
            listed = _listed(narrow)
            if listed is not None:  # its values say more than bounds
                continue
            if keyword not in narrow or sign * narrow[keyword] < sign * wide[keyword]:
                yield path, f"{keyword} was {old.get(keyword, 'none')}, and is {new.get(keyword, 'none')}"

    def _properties(self, old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Fault]:
        before, now = old.get("properties", {}), new.get("properties", {})
        for key, schema in before.items():
            place = f"{path}.{key}" if path else key
            if key in now:
                yield from self.faults(schema, now[key], place)
            else:
                yield place, "is removed"
        was, must = set(old.get("required", ())), set(new.get("required", ()))
        for key in sorted(must - was if self._is_request else was - must):
            if self._is_request or key in now:
                yield (
                    f"{path}.{key}" if path else key,
                    ("has become required" if self._is_request else "may be missing now"),
                )
        yield from self._other_keys(old, new, path)

    def _other_keys(self, old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Fault]:
        if "object" not in (_type(old), _type(new)):
            return
        before, now = old.get("additionalProperties", True), new.get("additionalProperties", True)
        place = f"{path}.*" if path else "*"
        if self._is_request and now is False and before is not False:
            yield place, "other keys are no longer allowed"
        elif isinstance(before, Mapping):
            yield from self.faults(before, now if isinstance(now, Mapping) else ANYTHING, place)
        elif self._is_request and isinstance(now, Mapping) and before is True:
            yield from self.faults(ANYTHING, now, place)

    def _items(self, old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Fault]:
        if "items" in old or "items" in new:
            yield from self.faults(old.get("items", ANYTHING), new.get("items", ANYTHING), f"{path}[]")


def _unjudged(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Fault]:
    for keyword in sorted((old.keys() | new.keys()) - JUDGED - SAID_ONLY):
        if not keyword.startswith("x-") and old.get(keyword, MISSING) != new.get(keyword, MISSING):
            yield path, f"{keyword} was {old.get(keyword, 'not there')!r}, and is {new.get(keyword, 'not there')!r}"


def _resolved(schema: Any, document: Mapping[str, Any]) -> Mapping[str, Any]:
    if schema is True or schema is None:
        return {}
    seen = schema
    while isinstance(seen, Mapping) and "$ref" in seen:
        found: Any = document
        for part in seen["$ref"].removeprefix("#/").split("/"):
            found = found[part.replace("~1", "/").replace("~0", "~")]
        seen = {**found, **{key: value for key, value in seen.items() if key != "$ref"}}
    return seen if isinstance(seen, Mapping) else {"not": {}}


def _joined(path: str, below: str) -> str:
    return f"{path}.{below}" if path and below and not below.startswith("[") else path + below


def _both(rest: Mapping[str, Any], one: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a union says of all its alternatives, and what one of them says."""
    required = [*rest.get("required", ()), *one.get("required", ())]
    return {**rest, **one, "required": required} if required else {**rest, **one}


def _has_reference(schema: Any) -> bool:
    """What a reference stands for may differ between the documents though the schemas around it are the same."""
    if isinstance(schema, Mapping):
        return "$ref" in schema or any(_has_reference(value) for value in schema.values())
    return isinstance(schema, list) and any(_has_reference(value) for value in schema)


def _type(schema: Mapping[str, Any]) -> Any:
    return schema.get("type")


def _listed(schema: Mapping[str, Any]) -> list[Any] | None:
    if "const" in schema:
        return [schema["const"]]
    found: list[Any] | None = schema.get("enum")
    return found


def _shown(schema: Mapping[str, Any]) -> str:
    listed = _listed(schema)
    return ", ".join(map(repr, listed)) if listed is not None else str(_type(schema) or "any value")
