"""The environment of the measured process, and what of it a measurement notes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from ctxplan.environment import environment as implied
from probes.points import Point

NOTED_PREFIXES = ("UNSLOTH_", "PYTORCH_", "TORCH_", "TRITON_", "CUDA_")
SECRETS = ("TOKEN", "KEY", "SECRET", "PASSWORD")
QUIET = {
    # A probe loads what lies on this machine, and tells nobody.
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
CACHES = {
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "UNSLOTH_COMPILE_LOCATION": "unsloth_compiled_cache",
}


def child_environment(
    point: Point, workdir: Path, *, uuid: str | None = None, around: Mapping[str, str] = os.environ
) -> dict[str, str]:
    """What the process gets: the environment around, what the job implies, and the point's own variables over them.

    Args:
        uuid: of the only card that it is to see; None for all that this process sees.
    """
    variables = {name: text for name, text in around.items() if not name.startswith("PYTHON")}
    variables |= {"PYTHONPATH": python_path(around), "PYTHONUNBUFFERED": "1", "PYTHONFAULTHANDLER": "1"}
    variables |= QUIET
    for name, folder in CACHES.items():
        variables.setdefault(name, str(workdir / folder))
    variables |= implied(point.job)
    if uuid is not None:
        variables["CUDA_VISIBLE_DEVICES"] = uuid
    return {**variables, **point.environment}


def noted(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables that can change what is measured: no paths, no card's number and no secret."""
    return {
        name: text
        for name, text in sorted(environment.items())
        if name.startswith(NOTED_PREFIXES)
        and name != "CUDA_VISIBLE_DEVICES"
        and not _is_path(text)
        and not any(word in name for word in SECRETS)
    }


def python_path(around: Mapping[str, str]) -> str:
    """PYTHONPATH with which another process, in another folder, imports the packages of this one."""
    ours = Path(__file__).resolve().parent.parent
    given = [os.path.abspath(part) for part in around.get("PYTHONPATH", "").split(os.pathsep) if part]
    return os.pathsep.join([str(ours), *(part for part in given if part != str(ours))])


def _is_path(text: str) -> bool:
    return "/" in text or "\\" in text or text.startswith("~")
