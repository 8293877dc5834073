"""GPU kinds, with the bytes that a program can really use.

``total_bytes`` is what ``cudaMemGetInfo`` reports as total on such a card
(``torch.cuda.get_device_properties(0).total_memory``), less than the gigabytes in its name and a little
different between drivers: where several values were seen, the least is taken. The context that CUDA and
PyTorch make before the first tensor is taken off it to give the usable bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from estimator.errors import UnknownDevice
from estimator.rules import shorten, shown

MIB = 2**20

H100_CONTEXT_BYTES = 718_077_952
"""Driver-used minus torch-reserved after start on an H100 80GB HBM3 (torch 2.11.0+cu130), the same in every
row measured on 2026-11-22. Other kinds are assumed to need as much."""

DEFAULT_CAPABILITY = (8, 0)
DEFAULT_MULTIPROCESSORS = 108
LEAST_TOTAL_BYTES = 2**30
MOST_TOTAL_BYTES = 2**50


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A GPU kind.

    Attributes:
        total_bytes: what the driver reports as total.
        context_bytes: driver-used minus torch-reserved right after start.
        compute_capability: (major, minor).
        multiprocessors: streaming multiprocessors.
        measured: whether steps were measured on such a card, and its context with them.
        source: where total_bytes was seen, and where the context comes from.
        assumptions: what had to be assumed about a card that is not in the catalogue.
        aliases: other names, as `find_device` compares them.
    """

    name: str
    total_bytes: int
    context_bytes: int
    compute_capability: tuple[int, int]
    multiprocessors: int
    measured: bool = False
    source: str = ""
    assumptions: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def usable_bytes(self) -> int:
        return self.total_bytes - self.context_bytes


def _kind(
    name: str,
    total_bytes: int,
    capability: tuple[int, int],
    multiprocessors: int,
    source: str,
    *aliases: str,
    measured: bool = False,
) -> Device:
    context = "context: measured" if measured else "context as on an H100 80GB HBM3 (assumed)"
    return Device(
        name=name,
        total_bytes=total_bytes,
        context_bytes=H100_CONTEXT_BYTES,
        compute_capability=capability,
        multiprocessors=multiprocessors,
        measured=measured,
        source=f"total: {source}; {context}",
        aliases=aliases,
    )


DEVICES: tuple[Device, ...] = (
    _kind(
        "B200-180GB",
        182_631 * MIB,
        (10, 0),
        148,
        "torch device properties print 182631 MB and, elsewhere, 182642 MB",
        "B200",
        "B200-192GB",
    ),
    Device(
        name="H200-141GB",
        total_bytes=150_109_880_320,
        context_bytes=708_837_376,
        compute_capability=(9, 0),
        multiprocessors=132,
        measured=True,
        source="total: read off an H200, with its context (driver 580.159, torch 2.11.0+cu130)",
        aliases=("H200", "H200 SXM", "H200 NVL"),
    ),
    _kind(
        "H100-NVL-94GB",
        99_456_909_312,
        (9, 0),
        132,
        "torch 2.5.1+cu124 total_memory in bytes; an out-of-memory message of another says 93.00 GiB "
        "(ali-vilab/VACE#56)",
        "H100 NVL",
        "H100-94GB",
    ),
    _kind(
        "H100-80GB",
        81_082 * MIB,
        (9, 0),
        132,
        "torch device properties print 81082 MB (torch 2.0.1), 81089 and 81090 MB (torch 2.7)",
        "H100",
        "H100 80GB HBM3",
        "H100 SXM",
        "H100 SXM5",
        "H100-SXM-80GB",
        "H100-SXM5-80GB",
        measured=True,
    ),
    _kind(
        "H100-PCIe-80GB",
        81_008 * MIB,
        (9, 0),
        114,
        "torch device properties print 81008 MB",
        "H100 PCIe",
        "H100 80GB PCIe",
    ),
    _kind(
        "A100-80GB",
        81_049 * MIB,
        (8, 0),
        108,
        "out-of-memory messages say 79.15 GiB, older ones 79.25 GiB (levihsu/OOTDiffusion#235)",
        "A100-SXM4-80GB",
        "A100-SXM-80GB",
        "A100 80GB PCIe",
        "A100-PCIE-80GB",
    ),
    _kind(
        "A100-40GB",
        40_326 * MIB,
        (8, 0),
        108,
        "torch device properties print 40326 MB (PCIe); messages say up to 39.50 GiB (TianheWu/CoSeR#10)",
        "A100-SXM4-40GB",
        "A100-SXM-40GB",
        "A100 40GB PCIe",
        "A100-PCIE-40GB",
    ),
    _kind(
        "L40S-48GB",
        45_589 * MIB,
        (8, 9),
        142,
        "torch device properties print 45589 MB, ECC on",
        "L40S",
    ),
    _kind(
        "L4-24GB",
        22_558 * MIB,
        (8, 9),
        58,
        "an out-of-memory message says 22.03 GiB, ECC on (ArcInstitute/evo2#190)",
        "L4",
    ),
    _kind(
        "A10G-24GB",
        22_587 * MIB,
        (8, 6),
        80,
        "torch device properties print 22587 MB (torch 2.15 nightly), 22723 MB with older drivers",
        "A10G",
    ),
    _kind(
        "RTX-PRO-6000-Blackwell-96GB",
        97_250 * MIB,
        (12, 0),
        188,
        "torch 2.7.1 device properties print 97250 MB (Server Edition)",
        "RTX PRO 6000",
        "RTX-PRO-6000-96GB",
        "RTX PRO 6000 Blackwell",
        "RTX PRO 6000 Blackwell Server Edition",
        "RTX PRO 6000 Blackwell Workstation Edition",
        "RTX PRO 6000 Blackwell Max-Q Workstation Edition",
    ),
    _kind(
        "RTX-A6000-48GB",
        48_537 * MIB,
        (8, 6),
        84,
        "out-of-memory messages say 47.40 to 47.43 GiB; torch device properties 48676 MB with older drivers",
        "RTX A6000",
        "A6000",
        "A6000-48GB",
    ),
    _kind(
        "RTX-5090-32GB",
        32_089 * MIB,
        (12, 0),
        170,
        "torch says 32089 MB, messages 31.34 to 31.39 GiB",
        "RTX 5090",
        "5090",
    ),
    _kind(
        "RTX-4090-24GB",
        24_084 * MIB,
        (8, 9),
        128,
        "out-of-memory messages say 23.52 GiB (driver 595), older drivers 23.64 GiB (ali-vilab/VGen#104)",
        "RTX 4090",
        "4090",
    ),
    _kind(
        "RTX-3090-24GB",
        24_125 * MIB,
        (8, 6),
        82,
        "out-of-memory messages say 23.56 GiB; 23.70 GiB with older drivers (Lightning-AI/lit-llama#137)",
        "RTX 3090",
        "3090",
    ),
    _kind(
        "V100-32GB",
        32_501 * MIB,
        (7, 0),
        80,
        "an out-of-memory message says 31.74 GiB (liucongg/ChatGLM-Finetuning#73)",
        "V100-SXM2-32GB",
        "V100-SXM3-32GB",
        "V100-PCIE-32GB",
        "V100S-PCIE-32GB",
    ),
    _kind(
        "V100-16GB",
        16_130 * MIB,
        (7, 0),
        80,
        "torch device properties print 16130 MB (SXM2) and 16160 MB (PCIe)",
        "V100-SXM2-16GB",
        "V100-PCIE-16GB",
    ),
    _kind(
        "T4-16GB",
        14_909 * MIB,
        (7, 5),
        40,
        "out-of-memory messages say 14.56 GiB; torch device properties 15079 to 15109 MB with older drivers",
        "T4",
    ),
)
"""The catalogue, by architecture and size."""


def find_device(gpu: str | Mapping[str, Any]) -> Device:
    """The device that a job's ``gpu`` names.

    Args:
        gpu: a catalogue name, in any case, or the driver's or a common name of such a card ("H100",
            "NVIDIA A100-SXM4-80GB"); or an object with ``name`` and ``total_bytes``, whose bytes are taken as
            they are and whose other properties come from the catalogue where it knows the name.

    Raises:
        UnknownDevice: no such name, or one that is of several kinds; it lists the catalogue and the nearest.
    """
    if isinstance(gpu, Mapping):
        return _described(gpu)
    if not isinstance(gpu, str):
        raise UnknownDevice(f"{shown(gpu)} is not a GPU", key="gpu", allowed=_listed())
    known = _by_name().get(_plain(gpu))
    if known is None:
        raise UnknownDevice(_unknown_message(gpu), key="gpu", allowed=_listed())
    return known


def _described(gpu: Mapping[str, Any]) -> Device:
    name, total = gpu.get("name"), gpu.get("total_bytes")
    if not isinstance(name, str) or not name:
        raise UnknownDevice(f"{shown(name)} is not a name", key="gpu.name", allowed="a string")
    bounds = f"a whole number of bytes from {LEAST_TOTAL_BYTES} to {MOST_TOTAL_BYTES}"
    if isinstance(total, bool) or not isinstance(total, int) or not LEAST_TOTAL_BYTES <= total <= MOST_TOTAL_BYTES:
        raise UnknownDevice(f"{shown(total)} is not accepted", key="gpu.total_bytes", allowed=bounds)
    known = _by_name().get(_plain(name)) or min(
        _of_several_kinds(name), key=lambda device: abs(device.total_bytes - total), default=None
    )
    source = "total: given with the job; context as on an H100 80GB HBM3 (assumed)"
    if known is not None:
        return replace(known, total_bytes=total, measured=False, source=source)
    major, minor = DEFAULT_CAPABILITY
    assumption = (
        f"gpu {shorten(name)} is not in the catalogue: planned as compute capability {major}.{minor} with "
        f"{DEFAULT_MULTIPROCESSORS} multiprocessors and a CUDA context of {H100_CONTEXT_BYTES} bytes"
    )
    return Device(
        name=name,
        total_bytes=total,
        context_bytes=H100_CONTEXT_BYTES,
        compute_capability=DEFAULT_CAPABILITY,
        multiprocessors=DEFAULT_MULTIPROCESSORS,
        source=source,
        assumptions=(assumption,),
    )


def _unknown_message(gpu: str) -> str:
    several = [device.name for device in _of_several_kinds(gpu)]
    if several:
        return f'"{shorten(gpu)}" comes in several kinds: {", ".join(several)}'
    from difflib import get_close_matches  # only a refusal needs it, and it costs an import

    near = get_close_matches(_plain(gpu), list(_by_name()), n=1, cutoff=0.5)
    meant = f' (the nearest is "{_by_name()[near[0]].name}")' if near else ""
    own = 'or give {"name", "total_bytes"}'
    return f'"{shorten(gpu)}" is not in the catalogue{meant}; name one that is, {own}'


def _of_several_kinds(name: str) -> Iterator[Device]:
    """Kinds that differ in memory alone and share this name, such as A100."""
    plain = _plain(name)
    return (device for device in DEVICES if plain and _plain(device.name.rpartition("-")[0]) == plain)


def _listed() -> str:
    return ", ".join(device.name for device in DEVICES)


@cache
def _by_name() -> Mapping[str, Device]:
    return {_plain(name): device for device in DEVICES for name in (device.name, *device.aliases)}


def _plain(name: str) -> str:
    """The name without case, punctuation and the maker's words: "NVIDIA GeForce RTX 4090" is "rtx4090"."""
    words = re.sub(r"[^a-z0-9]+", " ", name[:256].lower()).split()
    return "".join(word for word in words if word not in ("nvidia", "geforce", "tesla", "gpu"))
