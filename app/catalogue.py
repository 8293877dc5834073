"""What is known, as the command line and the service both list it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import ctxplan.models
from estimator import DEVICES


def gpus() -> list[dict[str, Any]]:
    """The GPU catalogue, as plain JSON values."""
    return [
        {
            "name": device.name,
            "total_bytes": device.total_bytes,
            "usable_bytes": device.usable_bytes,
            "compute_capability": ".".join(str(part) for part in device.compute_capability),
            "measured": device.measured,
            "aliases": list(device.aliases),
            "source": device.source,
        }
        for device in DEVICES
    ]


def models() -> list[dict[str, Any]]:
    """The model catalogue, as plain JSON values."""
    return [{**asdict(listing), "aliases": list(listing.aliases)} for listing in ctxplan.models.models()]
