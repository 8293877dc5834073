"""Keys that the tool does not know and does not mind: a misspelt one leaves its setting at the default in silence."""

from __future__ import annotations

from collections.abc import Iterator

from app.preflight.findings import Case, Finding


def unread_keys(case: Case) -> Iterator[Finding]:
    """``key-misspelt`` where a known key is near, ``key-unread`` otherwise; one finding a key."""
    tool = " ".join([case.reading.tool, *list(case.reading.versions.values())[:1]])
    for unread in case.reading.unread:
        message = f"{unread.key} is no key of {tool}, which does not mind: nothing was read of it"
        if unread.near:
            message += f'; did you mean "{unread.near}"?'
        yield Finding(
            rule="key-misspelt" if unread.near else "key-unread",
            level="warning" if unread.near else "note",
            message=message,
            place=unread.place,
            key=unread.key,
        )


RULES = (unread_keys,)
