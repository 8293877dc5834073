"""The manual's files that are written, wholly or in part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from scripts.manual import commands, errors, keys, metrics, routes, settings, shown, terms

DOCS = Path(__file__).resolve().parents[2] / "docs"
REFERENCE = DOCS / "reference"

WHOLE: Mapping[str, Callable[[], str]] = {
    "terms.md": terms.page,
    "keys.md": keys.page,
    "cli.md": commands.page,
    "api.md": routes.page,
    "shapes.md": routes.shapes_page,
    "settings.md": settings.page,
    "metrics.md": metrics.page,
    "errors.md": errors.page,
}
"""The files of `REFERENCE`, each with what writes it."""


def in_part() -> list[Path]:
    """The pages that show what a command prints."""
    return [page for page in sorted(DOCS.glob("*.md")) if shown.is_shown(page)]


def written() -> dict[Path, str]:
    """Every file with the text that it should have."""
    whole = {REFERENCE / name: page() for name, page in WHOLE.items()}
    return whole | {page: shown.filled(page) for page in in_part()}
