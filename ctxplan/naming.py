"""How things of a job are called where a person reads of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def gpu_name(gpu: str | Mapping[str, Any]) -> str:
    """The card's name, whether it is of the catalogue or described in the job."""
    return gpu if isinstance(gpu, str) else str(gpu["name"])
