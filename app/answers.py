"""Writing an answer's bytes."""

from __future__ import annotations

import json
from typing import Any

from pydantic_core import PydanticSerializationError, to_json
from starlette.responses import Response


def json_answer(content: dict[str, Any]) -> Response:
    """An answer that is JSON already: written as it is, without being validated a second time."""
    return Response(json_bytes(content), media_type="application/json")


def json_bytes(content: dict[str, Any]) -> bytes:
    """Compact JSON in UTF-8, or in ASCII where a caller's config holds characters that UTF-8 cannot (lone
    surrogates)."""
    try:
        return to_json(content)
    except (PydanticSerializationError, UnicodeEncodeError):
        return json.dumps(content, separators=(",", ":")).encode()
