"""JSON Schema in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from scripts.manual.markdown import code, prose, table

Schema = Mapping[str, Any]

SHAPES_PAGE = "shapes.md"
TYPES = {
    "integer": "whole number",
    "number": "number",
    "string": "text",
    "boolean": "`true` or `false`",
    "null": "null",
}


def kind(schema: Schema, page: str = SHAPES_PAGE) -> str:
    """What a value may be, as a piece of Markdown.

    Args:
        page: where the named shapes are, as a link from the page that this is for; "" for the same page.
    """
    if "$ref" in schema:
        return link(schema["$ref"], page)
    if "const" in schema:
        return code(json.dumps(schema["const"]))
    if "enum" in schema:
        return ", ".join(code(_bare(value)) for value in schema["enum"])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(dict.fromkeys(kind(one, page) for one in schema[several]))
    if schema.get("type") == "array":
        return f"list of: {kind(schema.get('items', {}), page)}"
    if schema.get("type") == "object":
        return _object(schema, page)
    word = TYPES.get(str(schema.get("type")), "any value")
    return word + _range(schema)


def link(ref: str, page: str) -> str:
    """A link to a named shape."""
    name = ref.rpartition("/")[2]
    return f"[{name}](keys.md)" if name == "Job" else f"[{name}]({page}#{name.lower()})"


def keys_table(schema: Schema, page: str = SHAPES_PAGE) -> str:
    """The keys of an object; empty where it has none of its own."""
    required = schema.get("required", ())
    described = any("description" in one for one in schema.get("properties", {}).values())
    rows = []
    for key, one in schema.get("properties", {}).items():
        row = [code(key), kind(one, page) + ("" if key in required else " (may be left out)")]
        rows.append([*row, prose(one.get("description"))] if described else row)
    return table(("key", "value", "meaning") if described else ("key", "value"), rows)


def _object(schema: Schema, page: str) -> str:
    keys = schema.get("properties")
    if keys:
        return "object of " + ", ".join(map(code, keys))
    values = schema.get("additionalProperties")
    if isinstance(values, Mapping) and values:
        return f"object of name to: {kind(values, page)}"
    return f"object ({prose(schema['description'])})" if "description" in schema else "object"


def _range(schema: Schema) -> str:
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if low is not None and high is not None:
        return f", {_number(low)} to {_number(high)}"
    if low is not None:
        return f", at least {_number(low)}"
    return f", at most {_number(high)}" if high is not None else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:g}"


def _bare(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
