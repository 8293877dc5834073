"""Bodies of the queue's requests, each one table of rules, which the OpenAPI document states as well."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from app.queue import InvalidSubmission, WorkerFacts
from app.queue.requests import MAX_ATTEMPTS, MAX_BYTES, MAX_NAME, MAX_PRIORITY
from estimator.errors import CtxplanError
from estimator.rules import Choice, Integer, Names, Number, Optional, Rule, Schema, Text, parse_object, shown

ACTIVATE = ("if_better", "always", "never")
Activate = Literal["if_better", "always", "never"]
MAX_POINTS = 5000
MAX_MEASUREMENTS = 200
MAX_VERSIONS = 64
MAX_WHY = 500
MAX_SECONDS = 31 * 86_400


class _Object:
    """Any object; whoever uses it reads it by rules of its own."""

    def parse(self, key: str, value: Any) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise InvalidSubmission(f"{shown(value)} is not accepted", key=key, allowed="an object")
        return value

    def schema(self) -> Schema:
        return {"type": "object"}


class _Several:
    """A list of objects, at least one."""

    def __init__(self, most: int) -> None:
        self._most = most

    def parse(self, key: str, value: Any) -> list[Any]:
        if not isinstance(value, list) or not 1 <= len(value) <= self._most:
            raise InvalidSubmission(f"{shown(value)} is not accepted", key=key, allowed=f"1 to {self._most} objects")
        return [_Object().parse(f"{key}[{number}]", one) for number, one in enumerate(value)]

    def schema(self) -> Schema:
        return {"type": "array", "items": {"type": "object"}, "minItems": 1, "maxItems": self._most}


class _Model:
    """A model, or a job of it: what is to be calibrated."""

    def parse(self, key: str, value: Any) -> Mapping[str, Any]:
        return value if isinstance(value, Mapping) else {"model": Text(512).parse(key, value)}

    def schema(self) -> Schema:
        return {"anyOf": [Text(512).schema(), {"$ref": "#/components/schemas/Job"}]}


class _Versions:
    """Package names with a version each; null where a package is not installed, if that may be said."""

    def __init__(self, *, nullable: bool) -> None:
        self._rule: Rule = Optional(Text(MAX_NAME)) if nullable else Text(MAX_NAME)

    def parse(self, key: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or len(value) > MAX_VERSIONS:
            allowed = f"an object of at most {MAX_VERSIONS} packages"
            raise InvalidSubmission(f"{shown(value)} is not accepted", key=key, allowed=allowed)
        name = Text(MAX_NAME)
        return {name.parse(key, one): self._rule.parse(f"{key}.{one}", version) for one, version in value.items()}

    def schema(self) -> Schema:
        return {"type": "object", "additionalProperties": self._rule.schema(), "maxProperties": MAX_VERSIONS}


class _Detail:
    """What went wrong: an object, or text."""

    def parse(self, key: str, value: Any) -> Mapping[str, Any]:
        if value is None:
            return {}
        if isinstance(value, str):
            return {"text": value}
        return _Object().parse(key, value)

    def schema(self) -> Schema:
        return {"anyOf": [{"type": "object"}, {"type": "string"}, {"type": "null"}]}


REQUIRES: Mapping[str, Rule] = {
    "gpu": Optional(Text(MAX_NAME)),
    "min_memory_bytes": Integer(0, MAX_BYTES),
    "versions": _Versions(nullable=False),
}


class _Requires:
    def parse(self, key: str, value: Any) -> dict[str, Any]:
        return read_object(REQUIRES, value, what=key)

    def schema(self) -> Schema:
        return object_schema(REQUIRES)


SUBMISSION: Mapping[str, Rule] = {
    "point": _Object(),
    "points": _Several(MAX_POINTS),
    "calibrate": _Model(),
    "checkpointing": Names(longest=3),
    "batches": Names(longest=3),
    "time_limit_seconds": Number(1, 86_400),
    "activate": Choice(ACTIVATE),
    "priority": Integer(-MAX_PRIORITY, MAX_PRIORITY),
    "max_attempts": Integer(1, MAX_ATTEMPTS),
    "expires_in_seconds": Number(1, MAX_SECONDS),
    "requires": _Requires(),
}
OF_CALIBRATE = ("checkpointing", "batches", "time_limit_seconds", "activate")
WHAT = ("point", "points", "calibrate")

WORKER: Mapping[str, Rule] = {
    "id": Text(MAX_NAME),
    "name": Text(MAX_NAME),
    "gpu": Text(MAX_NAME),
    "total_bytes": Integer(0, MAX_BYTES),
    "driver": Optional(Text(MAX_NAME)),
    "versions": _Versions(nullable=True),
}
NEEDED_OF_WORKER = frozenset({"id", "gpu", "total_bytes"})


class _Worker:
    def parse(self, key: str, value: Any) -> dict[str, Any]:
        return read_object(WORKER, value, what=key, required=NEEDED_OF_WORKER)

    def schema(self) -> Schema:
        return object_schema(WORKER, NEEDED_OF_WORKER)


LEASING: Mapping[str, Rule] = {"worker": _Worker()}
HEARTBEAT: Mapping[str, Rule] = {
    **WORKER,
    "draining": Choice((True, False)),
    "job": Optional(Integer(1, 2**62)),
}
FAILURE: Mapping[str, Rule] = {"why": Text(MAX_NAME), "detail": _Detail(), "retriable": Choice((True, False))}
RELEASE: Mapping[str, Rule] = {"why": Text(MAX_WHY)}
DRAINING: Mapping[str, Rule] = {"draining": Choice((True, False))}
MEASUREMENTS: Mapping[str, Rule] = {"measurements": _Several(MAX_MEASUREMENTS)}


def read_object(
    rules: Mapping[str, Rule], data: Any, *, what: str, required: frozenset[str] = frozenset()
) -> dict[str, Any]:
    """An object by its rules. Raises InvalidSubmission, which names the key, below ``what`` where that is a key."""
    try:
        return parse_object(rules, data, what=what, required=required)
    except CtxplanError as error:
        below = f"{what}.{error.key}" if error.key and what in ("worker", "requires") else error.key
        raise InvalidSubmission(error.message, key=below, allowed=error.allowed) from None


def read_submission(data: Any) -> dict[str, Any]:
    """What is to be measured. Raises InvalidSubmission."""
    body = read_object(SUBMISSION, data, what="a submission")
    named = [key for key in WHAT if key in body]
    if len(named) != 1:
        what = f"{named[0]} and {named[1]} are both given" if named else "nothing is to be measured"
        raise InvalidSubmission(what, key="point", allowed=f"one of {', '.join(WHAT)}")
    alone = [key for key in OF_CALIBRATE if key in body]
    if alone and "calibrate" not in body:
        raise InvalidSubmission("is for a calibration", key=alone[0], allowed="beside calibrate")
    return body


def facts_of(worker: Mapping[str, Any]) -> tuple[WorkerFacts, str]:
    """A worker's facts as the queue takes them, its card by the catalogue's name, and its own name.

    The driver counts as one more package, so that a job may ask for one. To be called in a thread: the first call
    imports what judges measurements.
    """
    from probes.fitting.asking import card_of

    versions = {"driver": worker["driver"]} if worker.get("driver") else {}
    facts = WorkerFacts(
        id=worker["id"],
        gpu=card_of(worker["gpu"]),
        total_bytes=worker["total_bytes"],
        versions={**versions, **worker.get("versions", {})},
    )
    return facts, worker.get("name") or worker["id"]


def object_schema(rules: Mapping[str, Rule], required: frozenset[str] = frozenset()) -> Schema:
    """The rules as JSON Schema."""
    return {
        "type": "object",
        "properties": {key: rule.schema() for key, rule in rules.items()},
        "required": sorted(required),
        "additionalProperties": False,
    }
