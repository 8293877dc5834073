"""A real service of its own: its keys, what it says, and how much memory it has."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.memory import resident_bytes

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0
SCOPES = ("plan", "measure", "work", "admin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service that asks for keys.

    Attributes:
        every: a key with every scope. plan: one with the scope plan. log: what it writes, as a file.
    """

    address: str
    every: str
    plan: str
    log: Path
    process: subprocess.Popen[bytes]

    def rss_bytes(self) -> int:
        """Of the service and of the processes in which it plans."""
        return resident_bytes(self.process.pid)

    def said(self) -> list[str]:
        """Lines of its log that tell of an error that nobody expected."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return [line for line in lines if re.search(r"Traceback|\"level\": \"(error|critical)\"|Warning:", line)]


@contextmanager
def serving() -> Iterator[Service]:
    """A service in a folder of its own, that asks no Hub. It ends with the block, and must end well."""
    with tempfile.TemporaryDirectory(prefix="ctxplan-fuzz-") as name:
        folder = Path(name)
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "PYTHONPATH": str(ROOT),
            "HOME": name,
            "CTXPLAN_ALLOW_HUB": "false",
            "CTXPLAN_ALLOW_CALIBRATION": "true",
            "CTXPLAN_REQUIRE_KEYS": "true",
            # What is turned away unread shows nothing of what was sent.
            "CTXPLAN_REQUESTS_PER_SECOND": "0",
            "CTXPLAN_MAX_LAG_MS": "10000",
            "CTXPLAN_LOG_LEVEL": "error",
        }
        every = _key(folder, environment, *SCOPES)
        plan = _key(folder, environment, "plan")
        log = folder / "log"
        with log.open("wb") as stream:
            command = [sys.executable, "-m", "app", "serve", "--port", "0"]
            with subprocess.Popen(command, cwd=folder, env=environment, stderr=stream) as process:
                try:
                    address = _address(log, process)
                    yield Service(address=address, every=every, plan=plan, log=log, process=process)
                finally:
                    process.terminate()
                    process.wait(SECONDS)


def _key(folder: Path, environment: dict[str, str], *scopes: str) -> str:
    asked = [word for scope in scopes for word in ("--scope", scope)]
    command = [sys.executable, "-m", "app", "keys", "create", "fuzz", *asked, "--json"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, check=True)
    key: str = json.loads(done.stdout)["key"]
    return key


def _address(log: Path, process: subprocess.Popen[bytes]) -> str:
    until = time.monotonic() + SECONDS
    while time.monotonic() < until and process.poll() is None:
        found = re.search(r'"address": "(http://[^"]+)"', log.read_text(encoding="utf-8", errors="replace"))
        if found:
            return found[1]
        time.sleep(0.05)
    raise RuntimeError(f"the service did not start: {log.read_text(errors='replace')}")
