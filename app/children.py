"""Processes that the service starts to calculate for it (`app.apart`, `app.jobs.fitting_process`)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = str(Path(__file__).resolve().parents[1])
INHERITED = ("PATH", "HOME", "LANG", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "HF_HOME", "XDG_CACHE_HOME")
INHERITED_FAMILIES = ("LC_", "PYTHON", "OMP_", "OPENBLAS_", "MKL_")
"""Names, and beginnings of them: what a process that only calculates needs. Others may be secrets."""


def start_child(module: str) -> subprocess.Popen[bytes]:
    """A process of its own that runs a module of this package, with a pipe to each of its standard streams. Raises
    OSError where there can be none."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command_of(module), stdin=pipe, stdout=pipe, stderr=pipe, env=environment_of_children())


def command_of(module: str) -> list[str]:
    """The command that runs a module of this package, whatever lies in the directory where the service was started."""
    return [sys.executable, "-P", "-m", module]


def environment_of_children() -> dict[str, str]:
    """Variables of a process that only calculates: none that holds a secret or a setting."""
    kept = {
        name: value for name, value in os.environ.items() if name in INHERITED or name.startswith(INHERITED_FAMILIES)
    }
    return {**kept, "PYTHONPATH": os.pathsep.join(filter(None, [HERE, os.environ.get("PYTHONPATH")]))}
