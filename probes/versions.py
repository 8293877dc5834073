"""The versions that are installed here. Nothing is imported."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "torch",
    "triton",
    "transformers",
    "unsloth",
    "unsloth_zoo",
    "bitsandbytes",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "flash_attn",
    "xformers",
)
"""What decides memory."""


def installed_versions() -> dict[str, str | None]:
    """Python's version and each package's, without the build's own suffix (``+cu130``); None where it is missing."""
    return {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}}


def _version(name: str) -> str | None:
    try:
        return version(name).partition("+")[0]
    except PackageNotFoundError:
        return None
