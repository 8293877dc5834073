"""Real processes: a service, a Ray cluster, and the fleet between them."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.probes.common import addresses, started, wait_for
from tests.probes.fleet import cluster as cluster_program

ROOT = Path(__file__).resolve().parents[3]
PATIENCE_SECONDS = 120
JOBS = "/v1/probe-jobs"


def within(look: Callable[[], Any], what: str) -> Any:
    """What is seen, once there is something."""
    return wait_for(look, what, seconds=PATIENCE_SECONDS, every=0.05)


def surroundings(**more: str) -> dict[str, str]:
    """The environment of what is started here: no GPU of this machine, no network."""
    left = {name: text for name, text in os.environ.items() if name not in ("CUDA_VISIBLE_DEVICES", "RAY_ADDRESS")}
    return {**left, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", **more}


@dataclass(kw_only=True)
class Service:
    """A service's process, and its database."""

    url: str
    environment: dict[str, str]
    http: httpx.Client

    def submit(self, *points: dict[str, Any], **more: Any) -> list[int]:
        answer = self.http.post(JOBS, json={"points": points, **more})
        assert answer.status_code == 201, answer.text
        return [item["id"] for item in answer.json()["items"]]

    def job(self, id: int) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"{JOBS}/{id}").json()
        return found

    def states(self, ids: list[int]) -> list[str]:
        return [self.job(id)["state"] for id in ids]


@contextmanager
def service(folder: Path) -> Iterator[Service]:
    """It asks for keys, and takes a lease back after the shortest time."""
    environment = surroundings(
        CTXPLAN_DATABASE_URL=f"sqlite+aiosqlite:///{folder / 'ctxplan.db'}",
        CTXPLAN_CALIBRATIONS=str(folder / "calibrations"),
        CTXPLAN_SWEEP_SECONDS="0.2",
        CTXPLAN_EVENT_SECONDS="0.05",
        CTXPLAN_LEASE_SECONDS="5",
        CTXPLAN_ALLOW_HUB="false",
        CTXPLAN_REQUIRE_KEYS="true",
    )
    key = new_key(environment, "measure", "plan")
    log = folder / "service.log"
    with started([sys.executable, "-m", "app", "serve", "--port", "0"], log, environment):
        url = within(lambda: addresses(log.read_text()), "the service")[0]
        headers = {"authorization": f"Bearer {key}"}
        with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS, trust_env=False, headers=headers) as http:
            yield Service(url=url, environment={**environment, "CTXPLAN_API_KEY": key}, http=http)
    assert "Traceback" not in log.read_text()


def new_key(environment: dict[str, str], *scopes: str) -> str:
    asked = [word for scope in scopes for word in ("--scope", scope)]
    command = [sys.executable, "-m", "app", "keys", "create", scopes[0], *asked]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.strip()


@dataclass(kw_only=True)
class Cluster:
    """A Ray cluster's process. ``nodes``: the ids of those beside the head."""

    address: str
    session: Path
    process: subprocess.Popen[str]
    nodes: list[str] = field(default_factory=list)

    def add(self) -> None:
        """One node more, with one H100."""
        self.nodes.append(self._ordered("add")["node"])

    def kill(self, node: str) -> None:
        """As when the machine is gone."""
        self._ordered(f"kill {node}")
        self.nodes.remove(node)

    def _ordered(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        told = self.process.stdout.readline()
        assert told, f"the cluster ended over {line}"
        found: dict[str, Any] = json.loads(told)
        return found


@contextmanager
def cluster(nodes: int) -> Iterator[Cluster]:
    """A head, and so many nodes; all of it is gone at the end."""
    with subprocess.Popen(
        [sys.executable, cluster_program.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=surroundings(),
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            head = json.loads(process.stdout.readline())
            running = Cluster(address=head["address"], session=Path(head["session"]), process=process)
            for _ in range(nodes):
                running.add()
            yield running
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(30)
            finally:
                process.kill()


@dataclass(kw_only=True)
class Fleet:
    """A ``ctxplan fleet ray``."""

    process: subprocess.Popen[str]
    log: Path

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def finish(self) -> tuple[int, dict[str, Any]]:
        """Its exit code and its report, once it has left."""
        out, _ = self.process.communicate(timeout=PATIENCE_SECONDS)
        return self.process.returncode, json.loads(out) if out else {}

    @property
    def told(self) -> str:
        return self.log.read_text()


@contextmanager
def fleet(
    folder: Path, at: Cluster, server: str, probe: list[str], *options: str, key: str | None, pretending: bool = False
) -> Iterator[Fleet]:
    """The command on this machine, which is a node of the cluster."""
    command = [sys.executable, "-m", "app", "fleet", "ray", "--address", at.address, "--server", server, "--json"]
    command += ["--state", str(folder / "state"), "--probe-command", shlex.join(probe), *options]
    hook = {"runtime_env": {"worker_process_setup_hook": "tests.probes.fleet.pretended_node.pretend"}}
    more = {"RAY_JOB_CONFIG_JSON_ENV_VAR": json.dumps(hook)} if pretending else {}
    environment = surroundings(**more, **({} if key is None else {"CTXPLAN_API_KEY": key}))
    log = folder / "fleet.log"
    with (
        log.open("w") as said,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=said, text=True) as process,
    ):
        try:
            yield Fleet(process=process, log=log)
        finally:
            process.kill()
