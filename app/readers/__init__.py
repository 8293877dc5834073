"""Reads configs of launchers: which job a file asks for, by the keys and the defaults of the tool that it is for."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import cast

from app.readers.detect import detect
from app.readers.document import Document
from app.readers.errors import ConfigError, Place
from app.readers.reading import Doubt, Effect, Reading, Source

__all__ = ["TOOLS", "ConfigError", "Doubt", "Effect", "Place", "Reading", "Source", "read"]

_READERS = {
    "unsloth": "unsloth:read_unsloth",
    "trl": "trl:read_trl",
    "axolotl": "axolotl:read_axolotl",
    "llamafactory": "llamafactory:read_llamafactory",
    "llamafactory-v1": "llamafactory_v1:read_llamafactory_v1",
    "job": "jobs:read_job",
}
TOOLS = tuple(_READERS)


def read(document: Document, tool: str | None = None) -> Reading:
    """Read a config.

    Args:
        tool: one of `TOOLS`; by default the one whose keys the config has.

    Raises:
        ConfigError: it is no such config, or a broken one; the error says where.
    """
    # Only the reader that is needed is imported: a command starts that much faster.
    module, _, function = _READERS[tool or detect(document)].partition(":")
    reader = getattr(import_module(f"app.readers.{module}"), function)
    return cast(Callable[[Document], Reading], reader)(document)
