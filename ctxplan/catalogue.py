"""The models that ctxplan knows without asking anyone: checked configs, and the names they go by.

``catalogue.jsonl`` has one model a line. transformers 5.17.0 builds exactly ``parameters`` from each
``config``; a test holds that. The names follow unsloth 2026.10.9, ``models/mapper.py``: ``unsloth/NAME`` is a
copy of the upstream repository, ``unsloth/NAME-bnb-4bit`` its pre-quantised NF4 checkpoint,
``unsloth/NAME-unsloth-bnb-4bit`` the dynamic one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ctxplan.nearest import nearest as most_like
from estimator.architecture import Architecture, Quantization
from estimator.families import read_config

Form = Literal["as_published", "bnb_4bit", "dynamic_bnb_4bit"]

PLAIN_SUFFIX = "-bnb-4bit"
DYNAMIC_SUFFIX = "-unsloth-bnb-4bit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A line of the catalogue.

    Attributes:
        aliases: names of 16-bit copies that do not follow from ``id``.
        unsloth_4bit: the repository that Unsloth loads in its place with ``load_in_4bit``, None where it
            quantises itself.
        bnb_4bit: whether pre-quantised repositories are loaded as they are; "on the fly" where Unsloth
            replaces them by the 16-bit one (``loader_utils.py`` ``BAD_MAPPINGS``), False where none are.
        note: what a planner has to be told about this name.
    """

    id: str
    parameters: int
    config: Mapping[str, Any]
    aliases: tuple[str, ...] = ()
    unsloth_4bit: str | None = None
    bnb_4bit: bool | str = True
    note: str | None = None

    @property
    def loads_dynamic(self) -> bool:
        """Whether Unsloth's 4-bit repository is a dynamic one."""
        return self.unsloth_4bit is not None and self.unsloth_4bit.endswith(DYNAMIC_SUFFIX)


class Match(NamedTuple):
    """An entry, and in which form a name means it."""

    entry: Entry
    form: Form


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelListing:
    """What `models` tells of an entry. ``native_length`` is in tokens; ``aliases`` are all other names it
    answers to."""

    id: str
    family: str
    parameters: int
    native_length: int
    aliases: tuple[str, ...]


def models() -> tuple[ModelListing, ...]:
    """Every model of the catalogue."""
    return tuple(
        ModelListing(
            id=entry.id,
            family=str(entry.config["model_type"]),
            parameters=entry.parameters,
            native_length=published_architecture(entry.id).rope.native_length,
            aliases=tuple(name for name, _ in _names(entry) if name != entry.id),
        )
        for entry in entries().values()
    )


def find(name: str) -> Match | None:
    """The entry that a repository name means, in any case."""
    return _index().get(name.lower())


def nearest(name: str) -> str | None:
    """The known name that is most like this one; see `ctxplan.nearest`."""
    return most_like(name, (known for entry in entries().values() for known, _ in _names(entry)))


def architecture_of(match: Match) -> Architecture:
    """The shape of a match, with the quantization of its form."""
    entry, form = match
    published = published_architecture(entry.id)
    if form == "as_published":
        return replace(published, unread_4bit=str(entry.unsloth_4bit)) if entry.loads_dynamic else published
    if entry.bnb_4bit == "on the fly":
        return replace(published, quantization=None)
    stored = Quantization(method="bitsandbytes_4bit", double_quant=True)
    unread = form == "dynamic_bnb_4bit" and (entry.loads_dynamic or not entry.unsloth_4bit)
    return replace(published, quantization=stored, unread_4bit="this dynamic checkpoint" if unread else "")


def assumptions_of(match: Match) -> tuple[str, ...]:
    """What has to be assumed because the repository itself was not read."""
    entry, form = match
    notes = [entry.note] if entry.note else []
    if form != "as_published" and entry.bnb_4bit == "on the fly":
        notes.append(f"Unsloth loads the 16-bit {entry.id} in place of this name and quantises it itself")
    elif form == "dynamic_bnb_4bit":
        replaced = entry.unsloth_4bit and not entry.loads_dynamic
        if replaced:
            notes.append(f"Unsloth loads {entry.unsloth_4bit} in place of this name")
    return tuple(notes)


@cache
def entries() -> Mapping[str, Entry]:
    """The catalogue by id."""
    text = Path(__file__).with_name("catalogue.jsonl").read_text(encoding="utf-8")
    rows = (json.loads(line) for line in text.splitlines())
    return {row["id"]: Entry(**{**row, "aliases": tuple(row["aliases"])}) for row in rows}


@cache
def published_architecture(model_id: str) -> Architecture:
    """The shape of an entry as its upstream repository stores it."""
    return read_config(entries()[model_id].config)


@cache
def _index() -> Mapping[str, Match]:
    return {name.lower(): Match(entry, form) for entry in entries().values() for name, form in _names(entry)}


def _names(entry: Entry) -> tuple[tuple[str, Form], ...]:
    """Every name of an entry with the form it means; its own id first."""
    copy = f"unsloth/{entry.id.partition('/')[2]}"
    # Unsloth's copy is sometimes another architecture, and then an entry of its own with its own names.
    copies = () if copy != entry.id and copy in entries() else (copy, *entry.aliases)
    names: dict[str, Form] = dict.fromkeys((entry.id, *copies), "as_published")
    if entry.bnb_4bit:
        bases = [name for name in copies if name.startswith("unsloth/")]
        names.update((name + PLAIN_SUFFIX, "bnb_4bit") for name in bases)
        names.update((name + DYNAMIC_SUFFIX, "dynamic_bnb_4bit") for name in bases)
    return tuple(names.items())
