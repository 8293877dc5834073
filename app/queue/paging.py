"""Cursors of a listing by key, newest first: where the page before ended, and of which filters."""

from __future__ import annotations

import base64
import json
from typing import Any

from app.queue.errors import InvalidCursor


def cursor_of(last_id: int, asked: list[Any]) -> str:
    """What to give for the page after the row with this id."""
    return base64.urlsafe_b64encode(json.dumps([last_id, *asked]).encode()).decode().rstrip("=")


def last_of(cursor: str, asked: list[Any]) -> int:
    """The id that the page before ended with. Raises InvalidCursor where it is of no page of this listing."""
    allowed = "the value of `next` from the page before, with the same filters"
    try:
        padded = cursor.encode() + b"=" * (-len(cursor) % 4)
        last_id, *filters = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, TypeError, RecursionError):
        raise InvalidCursor("is not a cursor", key="cursor", allowed=allowed) from None
    if filters != asked or isinstance(last_id, bool) or not isinstance(last_id, int) or not 0 < last_id < 2**63:
        raise InvalidCursor("is not of this listing", key="cursor", allowed=allowed)
    return last_id
