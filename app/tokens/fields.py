"""Which columns of a row are its document, and how they become one text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.tokens.chat import ChatTemplate, contents, messages_of
from app.tokens.sources import BadRow
from ctxplan.token_lengths import DocumentsError
from estimator.rules import hint, shorten, shown

USUAL: tuple[tuple[str, ...], ...] = (("text",), ("messages",), ("conversations",), ("prompt", "completion"))
"""What is looked for, in this order, where nobody names a column; after them, the only column of text."""
ALPACA = ("instruction", "input", "output")
"""Columns of the Alpaca format, which a prompt joins: they are named, and not taken by themselves, since the prompt's
own words are missing between them."""
MOST_LISTED = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Fields:
    """The columns that are read, and how.

    Attributes:
        columns: in the order in which they are joined. is_conversation: they hold messages, not text.
        template: writes the messages; without it their contents are taken alone.
    """

    columns: tuple[str, ...]
    is_conversation: bool
    template: ChatTemplate | None

    @property
    def needed(self) -> tuple[str, ...]:
        """What a reader of tables has to read: a template writes the tools as well."""
        return (*self.columns, "tools") if self.is_conversation and self.template else self.columns

    def text_of(self, row: Mapping[str, Any]) -> str:
        """A row's document. Raises BadRow, which names the column."""
        if not self.is_conversation:
            return "".join(_text(row, column) for column in self.columns)
        messages = [message for column in self.columns for message in messages_of(_value(row, column), column)]
        if self.template is None:
            return contents(messages)
        return self.template.render(messages, _tools(row))


def choose_fields(row: Mapping[str, Any], asked: tuple[str, ...], template: ChatTemplate | None, file: str) -> Fields:
    """Decide by a file's first row. Raises DocumentsError where no column, or none of that name, is there."""
    columns = asked or _usual(row, file)
    for column in columns:
        if column not in row:
            raise DocumentsError(
                f"{file}: has no column {shown(column)}{hint(column, tuple(row))}", key="field", allowed=_listed(row)
            )
    return Fields(columns=columns, is_conversation=isinstance(row[columns[0]], list), template=template)


def _usual(row: Mapping[str, Any], file: str) -> tuple[str, ...]:
    for columns in USUAL:
        if all(column in row for column in columns):
            return columns
    texts = [column for column, value in row.items() if isinstance(value, str)]
    if len(texts) == 1:
        return (texts[0],)
    message = f"{file}: which column is the document cannot be told"
    alpaca = ",".join(column for column in ALPACA if column in row)
    instead = f"; of these rows --field {alpaca}" if alpaca.count(",") else ""
    raise DocumentsError(message, key="field", allowed=f"{_listed(row)}{instead}")


def _listed(row: Mapping[str, Any]) -> str:
    names = [shorten(str(name)) for name in row][:MOST_LISTED]
    return ", ".join(names) or "the row has no columns"


def _value(row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        raise BadRow(f"{column}: is missing")
    return row[column]


def _text(row: Mapping[str, Any], column: str) -> str:
    value = _value(row, column)
    if not isinstance(value, str):
        raise BadRow(f"{column}: {shown(value)} is no text")
    return value


def _tools(row: Mapping[str, Any]) -> Any:
    """The tools of a conversation; TRL takes them as a list, or as a list written in JSON."""
    tools = row.get("tools")
    if not isinstance(tools, str):
        return tools or None
    try:
        return json.loads(tools) or None
    except ValueError:
        raise BadRow("tools: is no JSON") from None
