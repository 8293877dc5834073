"""Where a model's shape comes from: the config object, the catalogue, a directory, the local cache, the
Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ctxplan import catalogue, hub
from ctxplan.catalogue import ModelListing, models
from ctxplan.checkpoint import read_directory, read_hub
from estimator.architecture import Architecture
from estimator.errors import ArchitectureError, UnknownModel
from estimator.families import read_config
from estimator.rules import shorten, shown

__all__ = ["ModelFacts", "ModelListing", "Source", "models", "resolve_model"]

Source = Literal["config", "directory", "catalogue", "cache", "hub"]

_PATH_STARTS = ("./", "../", "/", "~")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A model's shape, and where it was read.

    Attributes:
        name: the name it was asked by, or the catalogue's id for it; None for a config object.
        revision: the commit of the Hub, where there is one.
        assumptions: what could not be read and had to be assumed, a sentence each.
    """

    architecture: Architecture
    source: Source
    name: str | None = None
    revision: str | None = None
    assumptions: tuple[str, ...] = ()


def resolve_model(
    model: str | Mapping[str, Any],
    *,
    revision: str | None = None,
    offline: bool = False,
    allow_local: bool = True,
) -> ModelFacts:
    """Find a model's shape.

    Args:
        model: a config object; a repository's name, looked up in the catalogue (where no revision is asked
            for), the local cache and the Hub, pinned by ``NAME@REVISION``; or a directory with a ``config.json``.
        revision: branch, tag or commit on the Hub.
        offline: never ask the Hub.
        allow_local: whether a directory may be read.

    Raises:
        UnknownModel: not found, within 8 s where there is no network; the message says what to pass instead.
        ArchitectureError: found, and not a shape that can be planned.
    """
    if isinstance(model, Mapping):
        return ModelFacts(architecture=read_config(model), source="config")
    try:
        return _found(model, revision, offline, allow_local)
    except UnknownModel as error:
        if not allow_local and error.allowed:
            error.allowed = error.allowed.replace(hub.INSTEAD, hub.CONFIG)
        raise


def _found(model: str, revision: str | None, offline: bool, allow_local: bool) -> ModelFacts:
    asked: object = model
    if not (isinstance(asked, str) and asked):
        raise UnknownModel(f"{shown(model)} is not a model", key="model", allowed=f"a Hub id, {hub.INSTEAD}")
    if revision is None and not model.startswith(_PATH_STARTS):
        model, _, pinned = model.partition("@")
        revision = pinned or None
    known = catalogue.find(model) if revision is None else None
    if known is not None:
        return _from_catalogue(model, known)
    directory = _directory(model, allow_local)
    if directory is not None:
        return _from_directory(directory)
    return _from_repository(model, revision, offline)


def _from_catalogue(name: str, match: catalogue.Match) -> ModelFacts:
    if match.form == "dynamic_bnb_4bit":
        # Its own config says which modules stay in 16 bit; a download has perhaps left one.
        kept = hub.from_cache(name, None)
        if kept is not None:
            return _from_file(kept, name, "cache")
    return ModelFacts(
        architecture=catalogue.architecture_of(match),
        source="catalogue",
        name=match.entry.id,
        assumptions=catalogue.assumptions_of(match),
    )


def _directory(model: str, allow_local: bool) -> Path | None:
    """The directory that the string names, None where it does not look like one."""
    looks_like_path = model.startswith(_PATH_STARTS) or model in (".", "..")
    if not allow_local:
        if looks_like_path:
            message = f'"{shorten(model)}" is a directory, and none is read here'
            raise UnknownModel(message, key="model", allowed="a Hub id, or the config object itself")
        return None
    try:
        path = Path(model).expanduser()
        exists = path.is_dir()
    except (OSError, RuntimeError, ValueError):  # a name too long, a ~ without a home, a null character
        path, exists = Path(), False
    if exists:
        return path
    if looks_like_path:
        raise UnknownModel(f'"{shorten(model)}" is not a directory', key="model", allowed=hub.INSTEAD)
    return None


def _from_directory(directory: Path) -> ModelFacts:
    config = directory / "config.json"
    if not config.is_file():
        adapter = " (it holds an adapter: name its base model)" if (directory / "adapter_config.json").is_file() else ""
        message = f'"{shorten(str(directory))}" has no config.json{adapter}'
        raise UnknownModel(message, key="model", allowed=hub.INSTEAD)
    return ModelFacts(architecture=_with_stored(_read(config), directory), source="directory", name=str(directory))


def _from_repository(name: str, revision: str | None, offline: bool) -> ModelFacts:
    hub.check_names(name, revision)
    kept = hub.from_cache(name, revision)
    if kept is not None:
        return _from_file(kept, name, "cache")
    near = catalogue.nearest(name)
    hint = f'; the nearest name in the catalogue is "{near}"' if near else ""
    if offline:
        message = f'"{shorten(name)}" is neither in the catalogue nor in the local cache{hint}'
        raise UnknownModel(message, key="model", allowed=f"pass {hub.INSTEAD}")
    try:
        fetched = hub.from_hub(name, revision)
    except UnknownModel as error:
        raise UnknownModel(error.message + hint, key=error.key, allowed=error.allowed) from error
    return _with_hub_headers(_from_file(fetched, name, "hub"), name)


def _with_hub_headers(facts: ModelFacts, name: str) -> ModelFacts:
    """The bytes that the repository's safetensors headers state, where they can be read."""
    try:
        stored = read_hub(name, facts.architecture, facts.revision)
    except UnknownModel as error:
        note = f"the checkpoint's headers were not read ({error.message}): weight bytes follow from the config"
        return replace(facts, assumptions=(*facts.assumptions, note))
    return replace(facts, architecture=replace(facts.architecture, stored=stored))


def _from_file(fetched: hub.Fetched, name: str, source: Source) -> ModelFacts:
    architecture = _with_stored(_read(fetched.path), fetched.path.parent)
    return ModelFacts(architecture=architecture, source=source, name=name, revision=fetched.revision)


def _with_stored(architecture: Architecture, directory: Path) -> Architecture:
    stored = read_directory(directory, architecture)
    return replace(architecture, stored=stored) if stored else architecture


def _read(path: Path) -> Architecture:
    try:
        size = path.stat().st_size
        text = path.read_text(encoding="utf-8") if size <= hub.MAX_CONFIG_BYTES else ""
    except (OSError, UnicodeDecodeError) as error:
        raise UnknownModel(f"{shorten(str(path))} cannot be read ({type(error).__name__})", key="model") from error
    if size > hub.MAX_CONFIG_BYTES:
        raise ArchitectureError(
            f"{shorten(str(path))} has {size} bytes", key="model", allowed=f"{hub.MAX_CONFIG_BYTES}"
        )
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArchitectureError(f"{shorten(str(path))} is not JSON", key="model", allowed="a config.json") from error
    return read_config(config)
