"""What the driver says about a card, through NVML: no CUDA context, and nothing where there is no driver."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from probes.neighbours import Sample


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


def find_card(device_index: int | None = None, environment: Mapping[str, str] = os.environ) -> Card | None:
    """The card that a process would get as its GPU number ``device_index`` (None: its first).

    CUDA_VISIBLE_DEVICES is followed where it lists plain indices or UUIDs. None where there is no driver, no NVML or
    no such card.
    """
    named = _named(device_index or 0, environment.get("CUDA_VISIBLE_DEVICES"))
    if named is None:
        return None
    with _nvml() as nvml:
        return _card(nvml, _handle(nvml, named)) if nvml else None


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


def _named(index: int, visible: str | None) -> int | str | None:
    """An index of NVML's, or a UUID."""
    if visible is None:
        return index
    listed = [name.strip() for name in visible.split(",")]
    if index >= len(listed):
        return None
    name = listed[index]
    if name.isdecimal():
        return int(name)
    return name if name.startswith(("GPU-", "MIG-")) else None  # -1, or empty: CUDA sees no device


def _handle(nvml: Any, named: int | str) -> Any:
    try:
        if isinstance(named, int):
            return nvml.nvmlDeviceGetHandleByIndex(named)
        return nvml.nvmlDeviceGetHandleByUUID(named)
    except nvml.NVMLError:
        return None


def _card(nvml: Any, handle: Any) -> Card | None:
    if handle is None:
        return None
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


def _used_bytes(nvml: Any, handle: Any) -> int:
    """Used by programs; the second version of the call leaves out what the driver reserves for itself."""
    try:
        return int(nvml.nvmlDeviceGetMemoryInfo(handle, nvml.nvmlMemory_v2).used)
    except (nvml.NVMLError, AttributeError):
        return int(nvml.nvmlDeviceGetMemoryInfo(handle).used)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
