"""Markdown as the reference pages need it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence


def document(title: str, *parts: str) -> str:
    """A generated page."""
    note = "Written by `scripts/reference` (`make reference`) from the code; a test runs it again. Do not edit."
    return "\n\n".join((f"# {title}", note, *(part for part in parts if part))) + "\n"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table, empty without rows. Cells are Markdown; lines in them are joined, and bars escaped."""
    body = ["| " + " | ".join(_cell(cell) for cell in row) + " |" for row in rows]
    head = "| " + " | ".join(columns) + " |"
    return "\n".join([head, "|" + "---|" * len(columns), *body]) if body else ""


def code(text: str) -> str:
    """A code span."""
    return f"`{text}`"


def codes(texts: Iterable[str]) -> str:
    """Code spans in a list."""
    return ", ".join(map(code, texts))


def prose(text: str | None) -> str:
    """A docstring as Markdown: its double backquotes made single, and what Markdown would take for markup escaped."""
    joined = re.sub(r"[ \t]*\n[ \t]*", "\n", (text or "").strip()).replace("``", "`")
    parts = re.split(r"(`[^`]*`)", joined)
    return "".join(part if part.startswith("`") else re.sub(r"([<*\[\]])", r"\\\1", part) for part in parts)


def first_line(text: str | None) -> str:
    """The first paragraph of a docstring, on one line."""
    return " ".join(prose((text or "").strip().split("\n\n")[0]).split())


def sentence(text: str) -> str:
    """With a full stop."""
    return text if not text or text.endswith((".", ":")) else f"{text}."


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
