"""Writing an answer's bytes."""

from __future__ import annotations

import json
from typing import Any

import orjson
from starlette.responses import Response


def json_answer(content: dict[str, Any]) -> Response:
    """An answer that is JSON already: written as it is, without being validated a second time."""
    return Response(json_bytes(content), media_type="application/json")


def json_bytes(content: dict[str, Any]) -> bytes:
    """Compact JSON in UTF-8, or in ASCII where a caller's config holds what orjson does not write: lone surrogates,
    numbers of more than 64 bits."""
    try:
        return orjson.dumps(content)
    except orjson.JSONEncodeError:
        return json.dumps(content, separators=(",", ":")).encode()
