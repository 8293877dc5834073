"""Reads one mapping of a config key by key, and remembers everything that has to be said of it in the end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from app.readers.document import Document, Path
from app.readers.errors import ConfigError, Place
from app.readers.reading import Doubt, Effect, Reading, Source, Unread
from estimator.errors import JobError
from estimator.rules import Rule, hint, near, shorten, shown

MOST_NAMED = 20
"""Unknown keys that are named, each in a sentence; a config has a few at most."""


@dataclass(frozen=True, slots=True)
class Unmodelled:
    """A key that matters for memory and is not modelled.

    Attributes:
        message: what it does, as the end of "KEY: ...". harmless: values with which it does nothing.
        most: as of `Doubt`.
    """

    effect: Effect
    message: str
    harmless: tuple[Any, ...] = (None, False)
    most: float = 1.0


class Notebook:
    """What reading a config gathers, in all of its sections."""

    def __init__(self, document: Document, tool: str, versions: Mapping[str, str]) -> None:
        self.document = document
        self.tool = tool
        self.versions = versions
        self.job: dict[str, Any] = {}
        self.sources: dict[str, Source] = {}
        self.doubts: list[Doubt] = []
        self.notes: list[str] = list(document.notes)
        self.unread: list[Unread] = []
        self.defaults: dict[str, Any] = {}
        self.packs = False
        self.flash_with_sinks = False

    @property
    def named(self) -> str:
        """The tool with its release."""
        return " ".join([self.tool, *list(self.versions.values())[:1]])

    def doubt(self, key: str, what: Unmodelled, place: Place) -> None:
        """Note a setting that is not modelled."""
        self.doubts.append(Doubt(key=key, effect=what.effect, message=what.message, place=place, most=what.most))

    def reading(self, *, length_from_data: bool = False, full_logits: bool = True) -> Reading:
        """Everything, once the last section was read."""
        notes = list(self.notes)
        if self.defaults:
            listed = [f"{key} {_plain(value)}" for key, value in self.defaults.items()]
            notes.insert(0, f"defaults of {self.named}: {', '.join(listed)}")
        others = [f"{name} {version}" for name, version in self.versions.items()]
        notes.insert(0, f"keys and defaults are read as those of {', '.join(others)}") if others else None
        return Reading(
            tool=self.tool,
            file=self.document.file,
            versions=self.versions,
            job=self.job,
            sources=self.sources,
            doubts=tuple(self.doubts),
            unread=tuple(self.unread),
            assumptions=tuple(notes),
            length_from_data=length_from_data,
            packs=self.packs,
            flash_with_sinks=self.flash_with_sinks,
            full_logits=full_logits,
        )


class Section:
    """One mapping of a config.

    Args:
        null_is_unset: whether a null means that the key is not given; where not, it is a value like others.
    """

    def __init__(
        self,
        notebook: Notebook,
        path: Path = (),
        values: Mapping[str, Any] | None = None,
        *,
        null_is_unset: bool = True,
    ) -> None:
        self.notebook = notebook
        self.path = path
        self.values = notebook.document.values if values is None else values
        self.null_is_unset = null_is_unset
        self._seen: set[str] = set()

    def has(self, key: str) -> bool:
        """Whether the key is given."""
        return key in self.values and not (self.null_is_unset and self.values[key] is None)

    def take(self, key: str, rule: Rule, default: Any = None) -> Any:
        """The value of a key, or its default, of which note is taken. Raises ConfigError."""
        self._seen.add(key)
        if not self.has(key):
            if default is not None:
                self.notebook.defaults[self.dotted(key)] = default
            return default
        try:
            return rule.parse(key, self.values[key])
        except JobError as error:
            dotted = self.dotted(error.key or key)
            raise ConfigError(error.message, place=self.place(key), key=dotted, allowed=error.allowed) from None

    def put(
        self,
        job_key: str,
        key: str,
        rule: Rule,
        default: Any = None,
        as_job: Callable[[Any], Any] = lambda value: value,
    ) -> Any:
        """Take a key and make it a key of the job; returns what the config says."""
        value = self.take(key, rule, default)
        if value is not None:
            self.set(job_key, as_job(value), key)
        return value

    def set(self, job_key: str, value: Any, key: str) -> None:
        """Make ``value`` a key of the job, which ``key`` is the source of."""
        self.notebook.job[job_key] = list(value) if isinstance(value, tuple) else value
        if self.has(key):
            self.notebook.sources[job_key] = Source(key=self.dotted(key), place=self.place(key))

    def section(self, key: str) -> Section:
        """The mapping below a key; an empty one where it is not given. Raises ConfigError where it is no mapping."""
        self._seen.add(key)
        below = self.values[key] if self.has(key) else {}
        if not isinstance(below, Mapping):
            raise self.error(key, f"is {shown(below)}", "a mapping of keys")
        return Section(self.notebook, (*self.path, key), below, null_is_unset=self.null_is_unset)

    def doubt_those(self, table: Mapping[str, Unmodelled]) -> None:
        """Note every given key of a table of settings that are not modelled, unless its value does nothing."""
        for key, what in table.items():
            self._seen.add(key)
            if self.has(key) and not any(_same(self.values[key], harmless) for harmless in what.harmless):
                self.notebook.doubt(self.dotted(key), what, self.place(key))

    def doubt(self, key: str, effect: Effect, message: str, *, most: float = 1.0, at: str | None = None) -> None:
        """Note one key that is not modelled, or not with this value; ``at`` another one, where it is not given."""
        self._seen.add(key)
        self.notebook.doubt(self.dotted(key), Unmodelled(effect, message, most=most), self.place(at or key))

    def note(self, text: str) -> None:
        """Say something about how the config was read."""
        self.notebook.notes.append(text)

    def know(self, keys: Iterable[str]) -> None:
        """Mark keys that have nothing to do with memory as seen."""
        self._seen.update(keys)

    def refuse_moved(self, moved: Mapping[str, str]) -> None:
        """Refuse keys of another version. ``moved``: what has become of each, in words."""
        for key, became in moved.items():
            if key in self.values and key not in self._seen:
                raise self.error(key, f"is no key of {self.notebook.named}", became)

    def finish(self, *, strict: bool) -> None:
        """Refuse the first key that nobody knows, or keep all of them where the tool does not mind them."""
        unknown = 0
        for key in self.values:
            if key in self._seen or not (strict or self.has(key)):
                continue
            if strict:
                message = f"unknown key{hint(key, tuple(sorted(self._seen)))}"
                raise self.error(key, message, f"the keys of {self.notebook.named}")
            unknown += 1
            if unknown <= MOST_NAMED:
                close = near(key, tuple(sorted(self._seen)))
                dotted = shorten(self.dotted(key))
                self.notebook.unread.append(Unread(key=dotted, near=close, place=self.place(key)))
        if unknown > MOST_NAMED:
            self.note(f"{unknown - MOST_NAMED} more keys are not known and were not read")

    def error(self, key: str, message: str, allowed: str | None = None, *, at: str | None = None) -> ConfigError:
        """An error about a key of this section; ``at`` another one, which asks for a key that is missing."""
        return ConfigError(message, place=self.place(at or key), key=shorten(self.dotted(key)), allowed=allowed)

    def contradiction(self, key: str, other: str, allowed: str) -> NoReturn:
        """Refuse two settings that exclude each other."""
        raise self.error(key, f"contradicts {other}", allowed)

    def place(self, key: str) -> Place:
        """Where a key of this section stands."""
        return self.notebook.document.place((*self.path, key))

    def dotted(self, key: str) -> str:
        """The key with those above it."""
        return ".".join((*self.path, key))


def _same(value: Any, harmless: Any) -> bool:
    """Whether they are the same value; 1 and true are not."""
    return bool(value == harmless) and isinstance(value, bool) is isinstance(harmless, bool)


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(str(item) for item in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
