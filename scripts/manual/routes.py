"""The HTTP interface: its routes and the shapes of its answers, from the OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fastapi.routing import APIRoute

from app.main import create_app
from app.settings import Settings
from scripts.manual.markdown import code, document, first_line, prose, table
from scripts.manual.shapes import Schema, keys_table, kind

COMMITTED = Path(__file__).resolve().parents[2] / "docs" / "openapi.json"

TAGS = {
    "plans": "Plans",
    "documents": "Documents",
    "catalogue": "What is known",
    "calibrations": "Calibrations",
    "measuring": "Jobs, measurements and campaigns",
    "workers": "Workers and leases",
    "operations": "Operations",
}
"""The sections, in their order; a tag that is not here comes after them under its own name."""


def openapi() -> dict[str, Any]:
    """The committed document; where there is none, what the service would serve."""
    if COMMITTED.is_file():
        found: dict[str, Any] = json.loads(COMMITTED.read_text(encoding="utf-8"))
        return found
    return create_app(Settings()).openapi()


def page() -> str:
    """The reference of routes."""
    sections: dict[str, list[str]] = {title: [] for title in TAGS.values()}
    for path, method, operation in operations(openapi()):
        tag = next(iter(operation.get("tags", ())), "other")
        sections.setdefault(TAGS.get(tag, tag.capitalize()), []).append(_operation(path, method, operation))
    parts = [part for title, found in sections.items() if found for part in (f"## {title}", *found)]
    return document(
        "HTTP interface",
        "Every route takes and gives JSON. What a key must have to use it is its *scope* "
        "([keys](../service.md#keys)); on a loopback address none is needed. Every error is a problem document, whose "
        "types are in [Errors](errors.md); 500 is always possible. `/docs` of a running service is this page to try "
        "out, and `/openapi.json` the document that it is written from.",
        *parts,
        "## Pages",
        "For a browser ([the page](../page.md)). They may change with any release; the routes above do not.",
        table(("route", "what it is"), pages()),
    )


def shapes_page() -> str:
    """The reference of what the routes answer with."""
    schemas: dict[str, Schema] = openapi()["components"]["schemas"]
    parts = []
    for name, schema in sorted(schemas.items()):
        if name != "Job":
            body = keys_table(schema, "") or f"Value: {kind(schema, '')}."
            parts += [f"## {name}", prose(schema.get("description")), body]
    return document(
        "Shapes of the HTTP interface",
        "Every JSON object by the name that [the routes](api.md) use. A job has [a page of its own](keys.md). "
        "A later service may add keys to an answer.",
        *parts,
    )


def operations(spec: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(path, method in capitals, operation), in the document's order."""
    for path, found in spec["paths"].items():
        for method, operation in found.items():
            yield path, method.upper(), operation


def pages() -> list[tuple[str, str]]:
    """Routes that are outside the document: (method and path, what it is)."""
    routes = [route for route in create_app(Settings()).routes if isinstance(route, APIRoute)]
    return [
        (code(f"{method} {route.path_format}"), first_line(route.endpoint.__doc__))
        for route in routes
        if not route.include_in_schema
        for method in sorted((route.methods or set()) - {"HEAD"})
    ]


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> str:
    scope = operation.get("x-scope")
    said = f"{prose(operation.get('description') or operation.get('summary'))} {_scope(scope)}"
    parts = [f"### {method} {path}", said, _parameters(operation), _body(operation), _answers(operation)]
    return "\n\n".join(part for part in parts if part)


def _scope(scope: str | None) -> str:
    return f"Scope: {code(scope)}." if scope else "Open to all."


def _parameters(operation: Mapping[str, Any]) -> str:
    rows = []
    for one in operation.get("parameters", ()):
        schema = one.get("schema", {})
        value = kind(schema) + (f"; by default {code(json.dumps(schema['default']))}" if "default" in schema else "")
        name = f"{code(one['name'])} ({one['in']}{', required' if one.get('required') else ''})"
        rows.append((name, value, prose(one.get("description"))))
    return table(("parameter", "value", "meaning"), rows)


def _body(operation: Mapping[str, Any]) -> str:
    found = []
    for media, one in operation.get("requestBody", {}).get("content", {}).items():
        schema = one.get("schema", {})
        tables = [table for either in schema.get("anyOf", [schema]) if (table := keys_table(either))]
        if tables:
            found.append(f"Body ({code(media)}), an object:\n\n" + "\n\nor\n\n".join(tables))
        else:
            found.append(f"Body ({code(media)}): {kind(schema)}.")
    return "\n\n".join(found)


def _answers(operation: Mapping[str, Any]) -> str:
    good, bad = [], []
    for status, answer in sorted(operation["responses"].items()):
        if not status.startswith("2"):
            bad.append(status)
            continue
        kinds = [f"{kind(one.get('schema', {}))} ({code(media)})" for media, one in answer.get("content", {}).items()]
        good.append(f"{status} {' or '.join(kinds)}" if kinds else f"{status}, no body")
    problems = f"; problems {', '.join(status for status in bad if status != '500')}" if bad != ["500"] and bad else ""
    return f"Answers: {'; '.join(good)}{problems}."
