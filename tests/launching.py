"""A place to run launchers' shell in: the real ``ctxplan`` on the PATH, and stand-ins for what would cost money."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIG = (ROOT / "examples" / "configs" / "unsloth.yaml").read_text(encoding="utf-8")
CONFIGS = {
    "fits": CONFIG,
    "does_not_fit": CONFIG.replace("max_seq_length: 89389", "max_seq_length: 400000"),
    "uncertain": CONFIG + "  use_dora: true\n",
    "unreadable": "model: [\n",
}
"""A config for each verdict on an H100-80GB with 256 GiB of host RAM."""
EXIT_CODES = {"fits": 0, "does_not_fit": 1, "unreadable": 2, "uncertain": 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A working directory, and the commands that a shell in it finds.

    Attributes:
        calls: a file to which each stand-in adds a line: its name and arguments.
    """

    directory: Path
    bin: Path
    calls: Path

    @property
    def path(self) -> str:
        return f"{self.bin}:/usr/bin:/bin"

    def run(self, command: Iterable[str], **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command here with nothing of our own environment but what Python needs."""
        return subprocess.run(
            [*command],
            cwd=self.directory,
            env={
                "PATH": f"{self.bin}:/usr/bin:/bin",
                "HOME": str(self.directory),
                "HF_HUB_OFFLINE": "1",
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def called(self) -> list[str]:
        """What the stand-ins were asked to do, in order."""
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def write_command(self, name: str, script: str) -> Path:
        """Put a shell script on the PATH."""
        file = self.bin / name
        file.write_text(f"#!/bin/bash\n{script}\n")
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
        return file


def prepare(directory: Path, verdict: str, stand_ins: Iterable[str]) -> Place:
    """A directory with a ``train.yaml`` of this verdict, ``ctxplan``, and stand-ins for the commands that are named."""
    place = Place(directory=directory / "work", bin=directory / "bin", calls=directory / "calls")
    place.directory.mkdir()
    place.bin.mkdir()
    (place.directory / "train.yaml").write_text(CONFIGS[verdict])
    path = os.pathsep.join(sys.path)
    place.write_command("ctxplan", f'PYTHONPATH="{path}" exec "{sys.executable}" -m app "$@"')
    for name in stand_ins:
        place.write_command(name, f'echo "{name} $*" >>"{place.calls}"')
    return place
