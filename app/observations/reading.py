"""The body of ``POST /v1/observations``, one table of rules, which the OpenAPI document states as well.

`ctxplan.observations` writes what this reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from app.jobs.reading import MAX_VERSIONS, object_schema
from app.queue import InvalidSubmission
from app.queue.requests import MAX_BYTES, MAX_NAME
from estimator import Job, parse_job
from estimator.errors import CtxplanError
from estimator.rules import Choice, Integer, Optional, Rule, Schema, Text, parse_object, shown

MAX_OBSERVATIONS = 200
MAX_STEP = 2**53
MOST_BYTES = min(MAX_BYTES, 2**60)
"""Sums of a few of them are still whole numbers that a database holds."""
BYTES = Integer(0, MOST_BYTES)
OUTCOMES = ("ok", "out_of_memory")


class _Nested:
    """An object by rules of its own; a fault names the key below this one."""

    def __init__(self, rules: Mapping[str, Rule], *required: str) -> None:
        self._rules, self._required = rules, frozenset(required)

    def parse(self, key: str, value: Any) -> dict[str, Any]:
        try:
            return parse_object(self._rules, value, what=key, required=self._required)
        except CtxplanError as error:
            raise _below(key, error) from None

    def schema(self) -> Schema:
        return object_schema(self._rules, self._required)


class _Versions:
    """Package names with the version that was installed, null where the package was not."""

    def parse(self, key: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or len(value) > MAX_VERSIONS:
            allowed = f"an object of at most {MAX_VERSIONS} packages"
            raise InvalidSubmission(f"{shown(value)} is not accepted", key=key, allowed=allowed)
        name, version = Text(MAX_NAME), Optional(Text(MAX_NAME))
        return {name.parse(key, one): version.parse(f"{key}.{one}", found) for one, found in value.items()}

    def schema(self) -> Schema:
        version = Optional(Text(MAX_NAME)).schema()
        return {"type": "object", "additionalProperties": version, "maxProperties": MAX_VERSIONS}


class _Time:
    """A time with its zone."""

    def parse(self, key: str, value: Any) -> str:
        text = Text(40).parse(key, value)
        try:
            has_zone = datetime.fromisoformat(text).tzinfo is not None
        except ValueError:
            has_zone = False
        if not has_zone:
            raise InvalidSubmission(f"{shown(value)} is not accepted", key=key, allowed="ISO 8601 with a zone")
        return text

    def schema(self) -> Schema:
        return {**Text(40).schema(), "format": "date-time"}


class _Job:
    """The job that was planned, as `estimator.job` has it."""

    def parse(self, key: str, value: Any) -> Job:
        try:
            return parse_job(value)
        except CtxplanError as error:
            raise _below(key, error) from None

    def schema(self) -> Schema:
        return {"$ref": "#/components/schemas/Job"}


PEAKS = _Nested({"allocated_bytes": BYTES, "reserved_bytes": BYTES}, "allocated_bytes", "reserved_bytes")
ALLOCATOR = _Nested(
    {key: Optional(BYTES) for key in ("tried_bytes", "free_bytes", "allocated_bytes", "unallocated_bytes")}
)
EXPECTED = _Nested({"expected": BYTES, "upper": BYTES}, "expected", "upper")
OBSERVATION: Mapping[str, Rule] = {
    "run": Text(64),
    "outcome": Choice(OUTCOMES),
    "step": Optional(Integer(0, MAX_STEP)),
    "phase": Optional(Text(64)),
    "peaks": Optional(PEAKS),
    "allocator": Optional(ALLOCATOR),
    "unplanned_bytes": Integer(-MOST_BYTES, MOST_BYTES),
    "expected": EXPECTED,
    "calibration": Text(MAX_NAME),
    "job": _Job(),
    "versions": _Versions(),
    "seen_at": _Time(),
}
NEEDED = frozenset({"run", "outcome", "expected", "calibration", "job", "seen_at"})
ONE = _Nested(OBSERVATION, *NEEDED)


class _Several:
    def parse(self, key: str, value: Any) -> list[dict[str, Any]]:
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_OBSERVATIONS:
            allowed = f"1 to {MAX_OBSERVATIONS} observations"
            raise InvalidSubmission(f"{shown(value)} is not accepted", key=key, allowed=allowed)
        return [ONE.parse(f"{key}[{number}]", one) for number, one in enumerate(value)]

    def schema(self) -> Schema:
        return {"type": "array", "items": ONE.schema(), "minItems": 1, "maxItems": MAX_OBSERVATIONS}


BODY: Mapping[str, Rule] = {"observations": _Several()}


def read_observations(data: Any) -> list[dict[str, Any]]:
    """The observations of a body, each with its ``job`` parsed. Raises InvalidSubmission, which names the key."""
    try:
        body = parse_object(BODY, data, what="a request", required=frozenset({"observations"}))
    except CtxplanError as error:
        raise InvalidSubmission(error.message, key=error.key, allowed=error.allowed) from None
    found: list[dict[str, Any]] = body["observations"]
    return found


def _below(key: str, error: CtxplanError) -> InvalidSubmission:
    """The same with the path to what is at fault: an object names its keys, and nothing above them."""
    return InvalidSubmission(error.message, key=f"{key}.{error.key}" if error.key else key, allowed=error.allowed)
