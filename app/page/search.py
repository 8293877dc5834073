"""Finding a model by what has been typed of its name."""

from __future__ import annotations

import re
from typing import NamedTuple

from ctxplan import catalogue
from ctxplan.models import ModelListing, models
from estimator.errors import CtxplanError, UnknownModel

MOST = 12
LONGEST = 200


class Found(NamedTuple):
    """A model that matches. ``name``: what to plan by, its own name unless only another one matches."""

    name: str
    listing: ModelListing


def search(text: str) -> tuple[Found, ...]:
    """The models in one of whose names every typed word is found, the best first; where there is none, the one that was
    perhaps meant; some where nothing is typed."""
    text = text.strip().lower()[:LONGEST]
    words = [word for word in re.split(r"[^a-z0-9.]+", text) if word]
    found = [one for listing in models() if (one := _match(listing, words, text))]
    if not found and (meant := catalogue.nearest(text)) is not None:
        found = [Found(meant, listing) for listing in models() if meant in (listing.id, *listing.aliases)]
    return tuple(sorted(found, key=lambda one: _rank(one, words))[:MOST])


def nearest(error: CtxplanError) -> str | None:
    """The name that was perhaps meant, where a model is not known."""
    typed = re.search(r'"([^"]+)"', str(error)) if isinstance(error, UnknownModel) else None
    return catalogue.nearest(typed[1]) if typed else None


def _match(listing: ModelListing, words: list[str], text: str) -> Found | None:
    names = (listing.id, *listing.aliases)
    matching = [name for name in names if all(word in name.lower() for word in words)]
    if not matching:
        return None
    return Found(min(matching, key=lambda name: (text not in name.lower(), name != listing.id, len(name))), listing)


def _rank(found: Found, words: list[str]) -> tuple[bool, int, str]:
    name = found.name.rpartition("/")[2].lower()
    return (bool(words) and not name.startswith(words[0]), len(name), name)
