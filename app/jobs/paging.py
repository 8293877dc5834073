"""Pages of a listing by key, newest first, with the queue's cursors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.queue.paging import cursor_of as cursor_of
from app.queue.paging import last_of as last_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Some rows, and the cursor of those after them; None at the end."""

    items: tuple[Any, ...]
    next: str | None
