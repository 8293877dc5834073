"""The package versions that a run uses, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from estimator.errors import JobError

MEASURED_STACK: Mapping[str, str | None] = {
    "python": "3.12.3",
    "torch": "2.11.0",
    "triton": "3.6.0",
    "transformers": "5.17.0",
    "unsloth": "2026.10.9",
    "unsloth_zoo": "2026.10.9",
    "bitsandbytes": "0.50.2",
    "trl": "1.15.0",
    "flash_attn": None,
    "xformers": None,
}
"""The stack of the measured rows; what a job leaves out of ``versions`` is taken from here."""


class Stack(NamedTuple):
    """Versions that decide memory.

    Attributes:
        torch: (major, minor). varlen: torch has its own variable-length attention (2.12 and later).
        rounds_up: torch before 2.10, where Unsloth sets ``roundup_power2_divisions`` and every block is inflated.
    """

    torch: tuple[int, int]
    has_flash_attention: bool
    has_xformers: bool

    @property
    def varlen(self) -> bool:
        return self.torch >= (2, 12)

    @property
    def rounds_up(self) -> bool:
        return self.torch < (2, 10)


def read_stack(versions: Mapping[str, str | None]) -> Stack:
    """Raises JobError where the torch version cannot be read."""
    torch = versions.get("torch") or MEASURED_STACK["torch"]
    return Stack(
        torch=_major_minor(str(torch), key="versions.torch"),
        has_flash_attention=bool(versions.get("flash_attn")),
        has_xformers=bool(versions.get("xformers")),
    )


def _major_minor(version: str, *, key: str) -> tuple[int, int]:
    parts = version.split(".")
    if len(parts) < 2 or not (parts[0].isascii() and parts[0].isdigit() and parts[1].isascii() and parts[1].isdigit()):
        raise JobError(f'"{version}" is not a version', key=key, allowed='a version such as "2.11.0"')
    return int(parts[0][:6]), int(parts[1][:6])
