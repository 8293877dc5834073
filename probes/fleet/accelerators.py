"""What Ray calls the GPUs of the catalogue.

Ray names a node's GPU after the driver's name for it, without its memory (`ray._private.accelerators.nvidia_gpu` of
2.60), and keeps the names of common ones in `ray.util.accelerators`: cards that differ in memory alone have one name
there, and the service tells them apart by what each worker says of itself.
"""

from __future__ import annotations

from estimator import find_device
from estimator.errors import UnknownDevice
from probes.fleet.order import check_text

RAY_NAMES = {
    "B200-180GB": "B200",
    "H200-141GB": "H200",
    "H100-NVL-94GB": "H100",
    "H100-80GB": "H100",
    "H100-PCIe-80GB": "H100",
    "A100-80GB": "A100",
    "A100-40GB": "A100",
    "L40S-48GB": "L40S",
    "L4-24GB": "L4",
    "A10G-24GB": "A10G",
    "RTX-PRO-6000-Blackwell-96GB": "RTX-PRO-6000",
    "RTX-A6000-48GB": "RTX-A6000",
    "RTX-5090-32GB": "GeForce-RTX-5090",
    "RTX-4090-24GB": "GeForce-RTX-4090",
    "RTX-3090-24GB": "GeForce-RTX-3090",
    "V100-32GB": "V100",
    "V100-16GB": "V100",
    "T4-16GB": "T4",
}
"""By the catalogue's names (`estimator.device.DEVICES`)."""


def accelerator_type(gpu: str) -> str:
    """Ray's name of a GPU; a name that the catalogue has not is taken for Ray's own.

    Raises:
        FleetOptionError: what is no name in either.
    """
    if gpu in RAY_NAMES.values():
        return gpu
    try:
        return RAY_NAMES[find_device(gpu).name]
    except UnknownDevice:
        check_text("gpu", gpu, r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}", "a GPU of ctxplan gpus, or Ray's accelerator type")
        return gpu
