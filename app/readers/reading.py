"""What a reader made of a config: the job, where each part of it stands, and what is not sure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from app.readers.errors import Place

Effect = Literal["more", "less", "either"]
"""What a setting that is not modelled does to the memory that is planned without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A setting that matters for memory and is not modelled.

    Attributes:
        key: the config's own key, dotted. message: what the setting does. effect: which verdict it makes unsure:
            ``more`` one that the job fits, ``less`` one that it does not, ``either`` both.
        most: the largest share of what is planned that ``less`` can be.
    """

    key: str
    message: str
    effect: Effect
    place: Place
    most: float = 1.0

    def to_json(self) -> dict[str, Any]:
        return {"key": self.key, "message": self.message, "effect": self.effect, "line": self.place.line}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a key of the job stands in the config: its own key there, dotted, and the place."""

    key: str
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Unread:
    """A key that the tool does not know and does not mind.

    Attributes:
        key: dotted. near: a known key that it may stand for; None where none is near.
    """

    key: str
    near: str | None
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """A config, read.

    Attributes:
        tool: which launcher's config it is. versions: the releases whose keys and defaults were assumed.
        job: keys of a job's JSON; what is missing was left to the job's own defaults.
        sources: for each key of the job that the config sets, where.
        length_from_data: nothing cuts the samples, so the longest one is the length.
        packs: rows hold many samples, and are as long as they can be whatever the samples are.
        flash_with_sinks: the flash kernel that is asked for takes attention sinks, which FlashAttention 2 does not.
        full_logits: False where the tool's loss never holds all logits, although the plan of its path has them.
        unread: keys that were not read, where the tool goes on without them.
        assumptions: sentences on defaults that were filled in and settings that were read in another's place.
    """

    tool: str
    file: str
    versions: Mapping[str, str]
    job: Mapping[str, Any]
    sources: Mapping[str, Source] = field(default_factory=dict)
    doubts: tuple[Doubt, ...] = ()
    unread: tuple[Unread, ...] = ()
    assumptions: tuple[str, ...] = ()
    length_from_data: bool = False
    packs: bool = False
    flash_with_sinks: bool = False
    full_logits: bool = True

    def place(self, job_key: str | None) -> Place:
        """Where a key of the job stands; the file where nothing sets it."""
        source = self.sources.get(job_key or "")
        return source.place if source else Place(self.file)
