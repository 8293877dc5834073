"""A config as plain values, with the line of every key: YAML as ``yaml.safe_load`` reads it, or strict JSON.

Nothing that a file can hold takes more than a bounded time or memory: its size, its nesting and the values that its
aliases stand for are all counted before anything is built from them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from app.jsontext import UnreadableJson, read_json
from app.readers.errors import ConfigError, Place
from app.readers.jsonlines import key_lines
from estimator.rules import shorten, shown

MAX_CONFIG_BYTES = 2**18
"""Configs of launchers are a few kilobytes."""
MAX_DEPTH = 32
MAX_VALUES = 20_000
"""Keys and values of a whole document, those that aliases repeat included."""
LONGEST_NUMBER = 400
"""Characters of a number; what is longer is no setting, and costs quadratic time to convert."""

AT_LINE = re.compile(r" at line (\d+), column \d+$")
YAML_NAMES = (".yaml", ".yml")
Path = tuple[str, ...]
MERGE = "tag:yaml.org,2002:merge"
_LOADER: type[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A config file that holds a mapping.

    Attributes:
        values: its plain values. lines: the line of every key below the mapping, by its path.
        notes: what a reader of the file would want to know, such as a key that is given twice.
    """

    file: str
    values: Mapping[str, Any]
    lines: Mapping[Path, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def place(self, path: Path = ()) -> Place:
        """Where a key is; the nearest known key above it where it has no line of its own."""
        while path and path not in self.lines:
            path = path[:-1]
        return Place(self.file, self.lines.get(path))


def read_document(body: bytes, file: str) -> Document:
    """Read a config file.

    Args:
        file: what messages call it; JSON where it ends in ``.json``, YAML where it ends in ``.yaml`` or ``.yml``, and
            else JSON where its text starts with a brace.

    Raises:
        ConfigError: not UTF-8, not one document, not a mapping, or larger, deeper or wider than a config can be.
    """
    if len(body) > MAX_CONFIG_BYTES:
        raise ConfigError("larger than a config can be", place=Place(file), allowed=f"at most {MAX_CONFIG_BYTES} bytes")
    if file.endswith(".json") or (not file.endswith(YAML_NAMES) and _looks_like_json(body)):
        return _read_json(body, file)
    return _read_yaml(body, file)


def _looks_like_json(body: bytes) -> bool:
    return body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{")


def document_of(values: Mapping[str, Any], file: str) -> Document:
    """A document from values that were read already; it has no lines."""
    return Document(file=file, values=values)


def _read_json(body: bytes, file: str) -> Document:
    try:
        values = read_json(body)
    except UnreadableJson as error:
        reason = error.message if body.strip() else "is empty"
        raise ConfigError(reason, place=_place_of(error, body, file), key=error.key, allowed=error.allowed) from None
    _check_mapping(values, Place(file, 1))
    return Document(file=file, values=values, lines=key_lines(body.decode("utf-8-sig")))


def _place_of(error: UnreadableJson, body: bytes, file: str) -> Place:
    """The line that the parser names, or the one on which the key at fault last stands."""
    told = AT_LINE.search(error.message)
    if told:
        return Place(file, int(told[1]))
    last = body.rfind(json.dumps(error.key).encode()) if error.key else -1
    return Place(file, 1 + body.count(b"\n", 0, last) if last >= 0 else None)


def _read_yaml(body: bytes, file: str) -> Document:
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = Place(file, 1 + body.count(b"\n", 0, error.start))
        raise ConfigError(f"not UTF-8: byte {error.start} cannot be read", place=place) from None
    try:
        _check_events(text, file)
        root = yaml.compose(text, Loader=_LOADER)
        built = _Builder(file)
        values = built.value(root, ()) if root is not None else None
    except yaml.MarkedYAMLError as error:
        raise _unreadable(error, file) from None
    except yaml.reader.ReaderError as error:
        place = Place(file, 1 + text.count("\n", 0, text.find(chr(error.character))))
        raise ConfigError(f"not YAML: the character U+{error.character:04X}", place=place) from None
    if values is None:
        raise ConfigError("is empty", place=Place(file), allowed="a mapping of keys")
    _check_mapping(values, Place(file, 1))
    return Document(file=file, values=values, lines=built.lines, notes=tuple(built.notes))


def _check_mapping(values: Any, place: Place) -> None:
    if not isinstance(values, Mapping):
        raise ConfigError(f"holds {shown(values)}", place=place, allowed="a mapping of keys")


def _check_events(text: str, file: str) -> None:
    """Count nodes and nesting before a tree is built; the parser hands out one event at a time."""
    depth = nodes = 0
    for event in yaml.parse(text, Loader=_LOADER):
        line = event.start_mark.line + 1 if event.start_mark else None
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        nodes += isinstance(event, yaml.NodeEvent)
        if depth > MAX_DEPTH:
            allowed = f"at most {MAX_DEPTH} levels"
            raise ConfigError("nested too deeply", place=Place(file, line), allowed=allowed)
        if nodes > MAX_VALUES:
            raise _too_many(Place(file, line))


def _too_many(place: Place) -> ConfigError:
    return ConfigError("holds too many values", place=place, allowed=f"at most {MAX_VALUES}, aliases written out")


def _unreadable(error: yaml.MarkedYAMLError, file: str) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark else None
    reason = ", ".join(shorten(part) for part in (error.context, error.problem) if part)
    return ConfigError(f"not YAML: {reason}", place=Place(file, line))


class _Builder:
    """Plain values of a composed document. An alias is written out each time, and counted each time."""

    def __init__(self, file: str) -> None:
        self.lines: dict[Path, int] = {}
        self.notes: list[str] = []
        self._file = file
        self._count = 0
        self._scalars = yaml.constructor.SafeConstructor()

    def value(self, node: yaml.Node, path: Path) -> Any:
        self._count += 1
        place = Place(self._file, node.start_mark.line + 1)
        if self._count > MAX_VALUES:
            raise _too_many(place)
        if len(path) > MAX_DEPTH:
            raise ConfigError("nested too deeply", place=place, allowed=f"at most {MAX_DEPTH} levels")
        if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
            return [self.value(item, (*path, str(index))) for index, item in enumerate(node.value)]
        return self._scalar(node, place)

    def _scalar(self, node: yaml.Node, place: Place) -> Any:
        if isinstance(node, yaml.CollectionNode) or (
            len(node.value) > LONGEST_NUMBER and node.tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
        ):
            raise ConfigError(f"{shorten(node.tag)} is not accepted here", place=place, allowed="plain values")
        try:
            return self._scalars.construct_object(node)
        except ValueError:  # a date that no calendar has
            raise ConfigError(f"{shown(node.value)} is not a value", place=place, allowed="plain values") from None

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        """The keys of a mapping over those that it merges; as text, since every key of a config is a name."""
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == MERGE:
                merged = {**self._merged(value_node, path), **merged}
                continue
            if not isinstance(key_node, yaml.ScalarNode):
                place = Place(self._file, key_node.start_mark.line + 1)
                raise ConfigError("a key that is no name", place=place, allowed="names as keys")
            key, line = key_node.value, key_node.start_mark.line + 1
            if key in own:
                self.notes.append(f"line {line}: {shorten(key)} is given twice, and the last one stands")
            self.lines[(*path, key)] = line
            own[key] = self.value(value_node, (*path, key))
        return {**merged, **own}

    def _merged(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for item in nodes:
            values = self.value(item, (*path, "<<"))
            if not isinstance(values, dict):
                place = Place(self._file, node.start_mark.line + 1)
                raise ConfigError("<< merges what is no mapping", place=place, allowed="a mapping, or a list of them")
            self._count += len(values)
            merged = {**values, **merged}
        return merged
