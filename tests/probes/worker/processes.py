"""Real workers: the command as users start it, with a stand-in for the measured process."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.probes.children import child
from tests.probes.common import wait_for

ROOT = Path(__file__).resolve().parents[3]


@dataclass(kw_only=True)
class Running:
    """A worker's process."""

    process: subprocess.Popen[str]
    spool: Path

    def finish(self, *, seconds: float = 60) -> tuple[int, dict[str, Any], str]:
        """Its exit code, its summary and what it told, once it has left."""
        out, told = self.process.communicate(timeout=seconds)
        return self.process.returncode, json.loads(out) if out else {}, told

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_until_told(self, what: str) -> None:
        """Read what it tells up to this; `finish` has the rest."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if what in line:
                return
        raise AssertionError(f"it left without telling: {what}")

    def files(self, name: str) -> list[Path]:
        return sorted((self.spool / name).glob("*.json"))

    def wait_until_measuring(self, tmp_path: Path) -> None:
        wait_for(lambda: (tmp_path / "begun").exists(), "the probe begins")


@contextmanager
def worker(tmp_path: Path, url: str, body: str | None, *options: str, key: str | None = None) -> Iterator[Running]:
    """A worker on the CPU whose measured process runs the body; None: a real probe."""
    spool = tmp_path / "spool"
    command = ["worker", "--server", url, "--cpu", "--json", "--spool", str(spool), *options]
    with started(command, tmp_path, body, key=key) as process:
        yield Running(process=process, spool=spool)


@contextmanager
def started(
    command: Sequence[str], tmp_path: Path, body: str | None, *, key: str | None = None
) -> Iterator[subprocess.Popen[str]]:
    """A command of ctxplan that measures, in a process of its own, which is gone at the end of ``with``."""
    probe = [] if body is None else ["--probe-command", shlex.join(child(tmp_path, body))]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", **({"CTXPLAN_API_KEY": key} if key else {})}
    process = subprocess.Popen(
        [sys.executable, "-m", "app", *command, *probe],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGCONT)
            process.kill()
        process.communicate(timeout=30)
