"""What counts as a break of the HTTP interface, and what does not: one small document each way."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest

from app.main import create_app
from scripts.contract.breaks import Break, breaks

Schema = Mapping[str, Any]
PATH = "/v1/things/{id}"


def document(**changes: Any) -> dict[str, Any]:
    """A document with one operation: a parameter, a body and an answer."""
    operation: dict[str, Any] = {
        "parameters": [
            {"in": "path", "name": "id", "required": True, "schema": {"type": "string"}},
            {"in": "query", "name": "limit", "required": False, "schema": {"type": "integer", "maximum": 100}},
        ],
        "requestBody": {"required": True, "content": {"application/json": {"schema": asked()}}},
        "responses": {
            "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/Answer"}}}},
            "404": {"content": {"application/problem+json": {"schema": {"type": "object"}}}},
        },
        "x-scope": "plan",
    }
    operation.update(changes)
    return {"paths": {PATH: {"post": operation}}, "components": {"schemas": {"Answer": answered()}}}


def asked(**properties: Schema) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 80},
            "mode": {"enum": ["train", "generate"]},
            "rank": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}], "default": None},
            "tags": {"type": "array", "items": {"type": "string"}},
            **properties,
        },
        "required": ["name"],
        "additionalProperties": False,
    }


def answered(**properties: Schema) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "bytes": {"type": "integer", "minimum": 0},
            "verdict": {"enum": ["fits", "does_not_fit"]},
            "next": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "inner": {"$ref": "#/components/schemas/Answer"},
            **properties,
        },
        "required": ["bytes", "verdict"],
    }


def with_body(schema: Schema) -> dict[str, Any]:
    return document(requestBody={"required": True, "content": {"application/json": {"schema": schema}}})


def with_answer(schema: Schema) -> dict[str, Any]:
    changed = document()
    changed["components"]["schemas"]["Answer"] = schema
    return changed


def without(schema: dict[str, Any], key: str) -> dict[str, Any]:
    changed = copy.deepcopy(schema)
    del changed["properties"][key]
    return changed


def renamed(schema: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    changed = copy.deepcopy(schema)
    changed["properties"][new] = changed["properties"].pop(old)
    return changed


def parameters(**limit: Any) -> list[dict[str, Any]]:
    first, second = document()["paths"][PATH]["post"]["parameters"]
    return [first, {**second, **limit}]


NEW_PARAMETER = {"in": "query", "name": "after", "required": True, "schema": {"type": "string"}}
BREAKS: dict[str, tuple[dict[str, Any], str]] = {
    "a removed route": ({"paths": {}, "components": {}}, "is removed"),
    "a removed method": ({"paths": {PATH: {}}, "components": {}}, "is removed"),
    "a parameter that is removed": (document(parameters=parameters()[:1]), "query limit: is removed"),
    "a parameter that has become required": (document(parameters=parameters(required=True)), "become required"),
    "a new parameter that is required": (document(parameters=[*parameters(), NEW_PARAMETER]), "new and required"),
    "a parameter that is narrowed": (
        document(parameters=parameters(schema={"type": "integer", "maximum": 50})),
        "maximum was 100, and is 50",
    ),
    "a parameter of another type": (document(parameters=parameters(schema={"type": "string"})), "was integer"),
    "a body that is no longer read": (document(requestBody=None), "no longer read"),
    "a body of another media type": (
        document(requestBody={"required": True, "content": {"text/plain": {"schema": asked()}}}),
        "no longer application/json",
    ),
    "a key that is no longer taken": (with_body(without(asked(), "tags")), "body tags: is removed"),
    "a key that is renamed": (with_body(renamed(asked(), "tags", "labels")), "body tags: is removed"),
    "a new key that is required": (
        with_body({**asked(new={"type": "string"}), "required": ["name", "new"]}),
        "body new: has become required",
    ),
    "a key that has become required": (with_body({**asked(), "required": ["name", "mode"]}), "body mode"),
    "a value that is no longer taken": (with_body(asked(mode={"enum": ["train"]})), "'generate' is no longer allowed"),
    "a text that has become a list of values": (
        with_body(asked(name={"type": "string", "enum": ["a"], "maxLength": 80})),
        "one of a list",
    ),
    "null that is no longer taken": (
        with_body(asked(rank={"type": "integer", "minimum": 1, "default": None})),
        "body rank: null is no longer allowed",
    ),
    "a bound that is narrower": (with_body(asked(name={"type": "string", "maxLength": 8})), "maxLength was 80"),
    "a bound that is new": (
        with_body(asked(tags={"type": "array", "items": {"type": "string"}, "maxItems": 3})),
        "maxItems was none",
    ),
    "items of another type": (
        with_body(asked(tags={"type": "array", "items": {"type": "integer"}})),
        "body tags[]: was string",
    ),
    "another default": (
        with_body(asked(rank={"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}], "default": 8})),
        "no longer the default None",
    ),
    "a pattern that is new": (
        with_body(asked(name={"type": "string", "maxLength": 80, "pattern": "^a"})),
        "pattern was 'not there'",
    ),
    "a keyword that nobody has judged": (
        with_body(asked(name={"type": "string", "maxLength": 80, "not": {"const": "x"}})),
        "not was 'not there'",
    ),
    "a status that is no longer answered": (
        document(responses={"200": document()["paths"][PATH]["post"]["responses"]["200"]}),
        "404: is removed",
    ),
    "an answer without a key": (with_answer(without(answered(), "next")), "200 next: is removed"),
    "an answer with a key of another name": (with_answer(renamed(answered(), "bytes", "size")), "200 bytes"),
    "a key that may be missing": (with_answer({**answered(), "required": ["bytes"]}), "verdict: may be missing"),
    "an answer that may be null": (
        with_answer(answered(bytes={"anyOf": [{"type": "integer", "minimum": 0}, {"type": "null"}]})),
        "null is a new kind of value",
    ),
    "an answer of a wider type": (with_answer(answered(bytes={"type": "number", "minimum": 0})), "was integer"),
    "a word that readers do not know": (
        with_answer(answered(verdict={"enum": ["fits", "does_not_fit", "perhaps"]})),
        "'perhaps' is a new value",
    ),
    "an answer that was a list of words": (with_answer(answered(verdict={"type": "string"})), "200 verdict"),
    "an answer within wider bounds": (with_answer(answered(bytes={"type": "integer"})), "minimum was 0"),
    "another scope": (document(**{"x-scope": "admin"}), "needs a key with the scope admin, and not plan"),
}

ADDITIONS: dict[str, dict[str, Any]] = {
    "nothing": document(),
    "a new route": {**document(), "paths": {**document()["paths"], "/v2": {"get": {"responses": {}}}}},
    "a new parameter that may be left out": document(parameters=[*parameters(), {**NEW_PARAMETER, "required": False}]),
    "a parameter with a wider bound": document(parameters=parameters(schema={"type": "integer", "maximum": 1000})),
    "a new key that may be left out": with_body(asked(new={"type": "string"})),
    "a new value that is taken": with_body(asked(mode={"enum": ["train", "generate", "evaluate"]})),
    "a key that may be left out now": with_body({**asked(), "required": []}),
    "null that is taken": with_body(
        asked(name={"anyOf": [{"type": "string", "maxLength": 80}, {"type": "null"}]}),
    ),
    "an integer's place taken by a number": document(parameters=parameters(schema={"type": "number", "maximum": 100})),
    "other keys that are taken": with_body({**asked(), "additionalProperties": True}),
    "a new key in an answer": with_answer(answered(new={"type": "string"})),
    "a key that is always there now": with_answer({**answered(), "required": ["bytes", "verdict", "next"]}),
    "an answer that is never null now": with_answer(answered(next={"type": "string"})),
    "a word that is no longer answered": with_answer(answered(verdict={"enum": ["fits"]})),
    "other descriptions": with_body({**asked(), "description": "new", "title": "New"}),
    "a status that is new": document(
        responses={**document()["paths"][PATH]["post"]["responses"], "429": {"description": ""}}
    ),
    "no key needed any more": document(**{"x-scope": None}),
}


@pytest.mark.parametrize("kind", BREAKS)
def test_a_break_is_named(kind: str) -> None:
    changed, expected = BREAKS[kind]
    assert expected in "\n".join(map(str, breaks(document(), changed)))


@pytest.mark.parametrize("kind", ADDITIONS)
def test_an_addition_passes(kind: str) -> None:
    assert breaks(document(), ADDITIONS[kind]) == ()


def test_a_break_in_a_schema_that_several_routes_share_is_found_behind_its_reference() -> None:
    changed = with_answer(without(answered(), "verdict"))
    assert str(breaks(document(), changed)[0]) == f"POST {PATH} 200 verdict: is removed"


SERVED = create_app().openapi()


def test_the_served_document_breaks_nothing_of_itself() -> None:
    assert breaks(SERVED, copy.deepcopy(SERVED)) == ()


@pytest.mark.parametrize("path", SERVED["paths"])
def test_no_route_that_is_served_can_go_unnoticed(path: str) -> None:
    changed = {**SERVED, "paths": {key: value for key, value in SERVED["paths"].items() if key != path}}
    assert {one.where.split()[1] for one in breaks(SERVED, changed)} == {path}


@pytest.mark.parametrize("name", SERVED["components"]["schemas"])
def test_no_key_of_a_schema_that_is_served_can_go_unnoticed(name: str) -> None:
    schemas = SERVED["components"]["schemas"]
    properties = schemas[name].get("properties", {})
    bare = {**schemas[name], "properties": {}, "required": []}
    changed = {**SERVED, "components": {"schemas": {**schemas, name: bare}}}
    removed = {one.where.rpartition(" ")[2].rpartition(".")[2] for one in breaks(SERVED, changed) if is_removal(one)}
    assert properties.keys() <= removed or not is_used(name)


def is_removal(one: Break) -> bool:
    return one.what == "is removed"


def is_used(name: str) -> bool:
    """Whether anything is asked or answered by a schema; the document may hold what other schemas alone name."""
    return f"'#/components/schemas/{name}'" in str(SERVED["paths"])
