"""A service and a worker of the run."""

from __future__ import annotations

import shlex
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx

from benchmarks.chaos import standin
from benchmarks.chaos.process import Process

LEASE_SECONDS = 5
SWEEP_SECONDS = 0.2
READY_SECONDS = 60.0
REAL_SECONDS = 300
"""What a real probe may take: it shares two cores with all the others."""


class Service(Process):
    """A service on one port, which it keeps from life to life."""

    def __init__(self, number: int, *, database_url: str, port: int, folder: Path) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        environment = {
            "CTXPLAN_DATABASE_URL": database_url,
            "CTXPLAN_CALIBRATIONS": str(folder / "calibrations"),
            "CTXPLAN_LEASE_SECONDS": str(LEASE_SECONDS),
            "CTXPLAN_SWEEP_SECONDS": str(SWEEP_SECONDS),
            "CTXPLAN_PROBE_TIME_LIMIT_SECONDS": str(REAL_SECONDS),
            "CTXPLAN_MAX_LAG_MS": "10000",  # workers that start keep both cores busy
            "CTXPLAN_ALLOW_HUB": "false",
            "HF_HUB_OFFLINE": "1",
        }
        super().__init__(["serve", "--port", str(port)], log=folder / f"service-{number}.log", environment=environment)

    def kill(self, *, away_seconds: float) -> None:
        """End it at once; it is to come back after so long."""
        self.rests_until = time.monotonic() + away_seconds
        self.send(signal.SIGKILL)

    def is_ready(self) -> bool:
        """Whether it answers."""
        try:
            return httpx.get(f"{self.url}/healthz", timeout=5, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def wait_until_ready(self) -> None:
        """Raises TimeoutError where it does not answer in time."""
        until = time.monotonic() + READY_SECONDS
        while not self.is_ready():
            if time.monotonic() > until:
                raise TimeoutError(f"the service does not answer; it said:\n{self.said()[-2000:]}")
            time.sleep(0.05)


class Worker(Process):
    """One worker, with a spool that outlives it.

    Attributes:
        frozen: whether it is.
    """

    def __init__(self, number: int, *, url: str, folder: Path, ledger: Path) -> None:
        self.name = f"chaos-{number}"
        self.spool = folder / self.name
        self.frozen = False
        probe = shlex.join([sys.executable, standin.__file__, str(ledger)])
        command = ["worker", "--server", url, "--cpu", "--id", self.name, "--spool", str(self.spool)]
        super().__init__(
            [*command, "--probe-command", probe],
            log=folder / f"{self.name}.log",
            environment={"HF_HUB_OFFLINE": "1", "NO_PROXY": "*"},
        )

    @property
    def is_up(self) -> bool:
        """Whether it runs, and nothing happens to it now."""
        return self.pid is not None and not self.frozen

    @property
    def measures(self) -> bool:
        """Whether it has a point in its hands."""
        return self.is_up and len(self.below()) >= 3  # what measures, its leash, and the probe

    def start(self) -> None:
        self.frozen = False
        super().start()

    def freeze(self) -> None:
        self.send(signal.SIGSTOP)
        self.frozen = True

    def thaw(self) -> None:
        self.send(signal.SIGCONT)
        self.frozen = False

    def files(self, name: str) -> list[Path]:
        """What its spool has: ``running``, ``results`` or ``refused``."""
        with suppress(FileNotFoundError):
            return sorted((self.spool / name).glob("*.json"))
        return []
