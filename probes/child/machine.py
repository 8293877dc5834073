"""The versions, the device and the host of this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from probes.errors import ProbeUnavailable
from probes.host import host_ram
from probes.versions import installed_versions

HOLDS_PINNED = ("rss_bytes", "peak_rss_bytes", "pinned_allocated_bytes", "pinned_reserved_bytes")
"""Figures of the host in which pinned blocks count."""


def stack() -> dict[str, str | None]:
    """Versions of what decides memory; None where a package is not installed, or is built for another torch."""
    import torch

    versions = installed_versions()
    for name in ("flash_attn", "xformers"):
        if versions[name] and not _imports(f"{name}.ops" if name == "xformers" else name):
            versions[name] = None
    return {"cuda": torch.version.cuda, "driver": _driver(), **versions}


def check_one_device() -> None:
    """Raise ProbeUnavailable where the process sees several GPUs: the stack would spread the model over them, and the
    counters are those of one."""
    import torch

    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if seen > 1:
        raise ProbeUnavailable(
            f"the process sees {seen} GPUs, and a point is measured on one",
            key="CUDA_VISIBLE_DEVICES",
            allowed="the UUID of one GPU",
        )


def device() -> dict[str, Any]:
    """The device as the driver names it."""
    import torch

    if not torch.cuda.is_available():
        return {"gpu": None}
    properties = torch.cuda.get_device_properties(0)
    return {
        "gpu": properties.name,
        "compute_capability": (properties.major, properties.minor),
        "total_bytes": int(torch.cuda.mem_get_info()[1]),
    }


def host(*, own: bool = True) -> dict[str, int | None]:
    """Host RAM of this process, bytes (proc(5) status), and of torch's pinned allocator.

    Args:
        own: whether the process holds no pinned memory of an earlier length; otherwise what such memory counts in is
            null.
    """
    status = dict(
        line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines() if ":" in line
    )
    measured = {
        "rss_bytes": _kib(status.get("VmRSS")),
        "anonymous_bytes": _kib(status.get("RssAnon")),
        "peak_rss_bytes": _kib(status.get("VmHWM")),
        **_pinned(),
        "total_ram_bytes": host_ram().total_bytes,
    }
    return measured if own else {**measured, **dict.fromkeys(HOLDS_PINNED)}


def _imports(module: str) -> bool:
    from importlib import import_module

    try:
        import_module(module)
    except Exception:  # a build for another torch fails in many ways
        return False
    return True


def _driver() -> str | None:
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # no NVML, or no driver
        return None


def _pinned() -> dict[str, int | None]:
    import torch

    if not torch.cuda.is_available():
        return {"pinned_allocated_bytes": None, "pinned_reserved_bytes": None}
    stats = torch.cuda.host_memory_stats()
    return {
        "pinned_allocated_bytes": stats.get("active_bytes.current"),
        "pinned_reserved_bytes": stats.get("allocated_bytes.current"),
    }


def _kib(text: str | None) -> int | None:
    return int(text.split()[0]) * 1024 if text else None
