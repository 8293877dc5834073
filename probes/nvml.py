"""What the driver says about a card, through NVML: no CUDA context, and nothing where there is no driver.

Cards are numbered as nvidia-smi does, in the order of their PCI buses, which is CUDA's under
``CUDA_DEVICE_ORDER=PCI_BUS_ID``. A probe measures a whole card: a MIG instance has its own bytes, but shares the
driver's counters and its list of processes with its neighbours, and is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from probes.errors import ProbeUnavailable
from probes.neighbours import Sample

WHOLE_CARD = "a whole GPU: turn MIG off (nvidia-smi -mig 0), or choose another card"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """One GPU, as the driver names it.

    Attributes:
        total_bytes: NVML's; what CUDA reports as total is some hundred MiB less. free_bytes: when it was looked up.
    """

    uuid: str
    name: str
    total_bytes: int
    free_bytes: int
    driver: str


def find_card(device_index: int | None = None, environment: Mapping[str, str] | None = None) -> Card | None:
    """The card of a number among those that are visible; None as number: the first, and None where there is none.

    CUDA_VISIBLE_DEVICES is followed as CUDA does: numbers (in the order of the PCI buses) and UUIDs, or their
    beginnings, up to the first that is no card.

    Raises:
        ProbeUnavailable: no card of that number; a card in MIG mode.
    """
    with _nvml() as nvml:
        visible = (
            _visible(nvml, (os.environ if environment is None else environment).get("CUDA_VISIBLE_DEVICES"))
            if nvml
            else []
        )
        card = _card(nvml, visible[device_index or 0]) if (device_index or 0) < len(visible) else None
    if card is None and device_index is not None:
        there = f"0 to {len(visible) - 1}" if visible else "none: no GPU is visible here"
        raise ProbeUnavailable(f"there is no GPU {device_index}", key="device_index", allowed=there)
    return card


class CardWatch:
    """Looks at one card again and again; for use in ``with``."""

    def __init__(self, card: Card | None) -> None:
        self._card = card
        self._nvml: Any = None
        self._handle: Any = None

    def __enter__(self) -> CardWatch:
        if self._card is not None:
            import pynvml

            pynvml.nvmlInit()
            self._nvml = pynvml
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(self._card.uuid)
        return self

    def __exit__(self, *_: object) -> None:
        if self._nvml is not None:
            self._nvml.nvmlShutdown()

    def sample(self) -> Sample | None:
        """What is on the card now; None without a card, or where NVML does not say."""
        if self._nvml is None:
            return None
        try:
            listed = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
            used = _used_bytes(self._nvml, self._handle)
        except self._nvml.NVMLError:
            return None
        return Sample(used_bytes=used, processes={int(found.pid): found.usedGpuMemory for found in listed})


@contextmanager
def _nvml() -> Iterator[Any]:
    """The pynvml module, initialised; None where that cannot be."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no package, no library, no driver: each raises its own
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _visible(nvml: Any, listed: str | None) -> list[Any]:
    """Handles of the cards that a process would see, in its order."""
    cards = _all_cards(nvml)
    if listed is None:
        return [handle for _, handle in cards]
    visible = []
    for name in listed.split(","):
        handle = _named(cards, name.strip())
        if handle is None:
            break
        visible.append(handle)
    return visible


def _all_cards(nvml: Any) -> list[tuple[str, Any]]:
    """UUID and handle of every card that can be looked at, in the order of their PCI buses."""
    found = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            bus = _text(nvml.nvmlDeviceGetPciInfo(handle).busId)
            found.append((bus, _text(nvml.nvmlDeviceGetUUID(handle)), handle))
        except nvml.NVMLError:  # another container's
            continue
    return [(uuid, handle) for _, uuid, handle in sorted(found, key=lambda card: card[0])]


def _named(cards: list[tuple[str, Any]], name: str) -> Any:
    """A card by its number or by the beginning of its UUID; None where that is none, or several."""
    if name.startswith("MIG-"):
        raise ProbeUnavailable(f"CUDA_VISIBLE_DEVICES has the MIG instance {name}", allowed=WHOLE_CARD)
    if name.isdecimal():
        return cards[int(name)][1] if int(name) < len(cards) else None
    meant = [handle for uuid, handle in cards if name.startswith("GPU-") and uuid.startswith(name)]
    return meant[0] if len(meant) == 1 else None


def _card(nvml: Any, handle: Any) -> Card | None:
    if _is_split(nvml, handle):
        raise ProbeUnavailable("the GPU is in MIG mode", allowed=WHOLE_CARD)
    try:
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        return Card(
            uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
            name=_text(nvml.nvmlDeviceGetName(handle)),
            total_bytes=int(memory.total),
            free_bytes=int(memory.free),
            driver=_text(nvml.nvmlSystemGetDriverVersion()),
        )
    except nvml.NVMLError:
        return None


def _is_split(nvml: Any, handle: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    except nvml.NVMLError:  # a card that has no such mode
        return False


def _used_bytes(nvml: Any, handle: Any) -> int:
    """Used by programs; the second version of the call leaves out what the driver reserves for itself."""
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2).used)
    except (nvml.NVMLError, AttributeError):
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).used)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
