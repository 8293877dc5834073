"""What a machine is to the service that gives it points, and whether a point suits it."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from probes.checks import missing_packages, wrong_gpu
from probes.host import host_ram
from probes.nvml import Card, find_card
from probes.points import Point
from probes.versions import installed_versions
from probes.worker.errors import WorkerError

CPU = "cpu"
"""What a worker without a GPU calls its card: only what asks for it by this name is given to it."""
LONGEST_NAME = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A worker as the service knows it.

    Attributes:
        id: the same whenever this machine works with this card. name: for people.
        card: the GPU; None for a worker on the CPU.
    """

    id: str
    name: str
    card: Card | None
    total_bytes: int
    versions: Mapping[str, str | None]

    @property
    def gpu(self) -> str:
        return CPU if self.card is None else self.card.name

    @property
    def driver(self) -> str | None:
        return None if self.card is None else self.card.driver

    def to_json(self) -> dict[str, Any]:
        """As the lease protocol has it."""
        return {
            "id": self.id,
            "name": self.name,
            "gpu": self.gpu,
            "total_bytes": self.total_bytes,
            "driver": self.driver,
            "versions": dict(self.versions),
        }


def find_facts(
    *, cpu: bool = False, device_index: int | None = None, id: str | None = None, name: str | None = None
) -> Facts:
    """What this machine is.

    Args:
        cpu: work without a GPU. device_index: as `probes.nvml.find_card`. id, name: instead of the ones made from the
            host's name and the card's UUID.

    Raises:
        WorkerError: there is no GPU, and ``cpu`` was not asked for; a name that is none.
        ProbeUnavailable: as `probes.nvml.find_card`.
    """
    card = None if cpu else find_card(device_index)
    if card is None and not cpu:
        raise WorkerError("there is no GPU here", allowed="a machine with one, or --cpu")
    host = socket.gethostname() or "host"
    which = CPU if card is None else card.uuid.removeprefix("GPU-")[:13]
    chosen = _checked("id", id or re.sub(r"[^\w.-]", "-", f"{host}-{which}"))
    return Facts(
        id=chosen,
        name=_checked("name", name or (f"{host} {CPU}" if card is None else f"{host} {card.name}")),
        card=card,
        total_bytes=(host_ram().total_bytes or 0) if card is None else card.total_bytes,
        versions=installed_versions(),
    )


def unsuitable(point: Point, facts: Facts) -> str | None:
    """Why this machine cannot measure the point, in words; None where it can. The service has looked already, by what
    it was told: this looks again, at what is so.

    Raises:
        UnknownDevice: the point's GPU is in no catalogue that this version knows.
    """
    has = {**facts.versions, "driver": facts.driver}
    for package, version in point.job.versions.items():
        if has.get(package) != version:
            return f"the point asks for {package} {version}, and this machine has {has.get(package) or 'none'}"
    if missing := missing_packages(point):
        return f"not installed here: {', '.join(missing)}"
    if facts.card is None:
        return "the point holds a GPU down to a smaller one, and this worker has none" if point.cap_bytes else None
    if point.cap_bytes is None:
        return wrong_gpu(point, facts.card)
    if point.cap_bytes > facts.card.total_bytes:
        return f"the point stands in for a card of {point.cap_bytes} bytes, and this has {facts.card.total_bytes}"
    return None


def _checked(key: str, text: str) -> str:
    if not 1 <= len(text) <= LONGEST_NAME or not text.isprintable() or "/" in text:
        raise WorkerError("is no name", key=key, allowed=f"1 to {LONGEST_NAME} printable characters, and no /")
    return text
