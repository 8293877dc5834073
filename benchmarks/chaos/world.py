"""The services, their workers and their database while the faults happen."""

from __future__ import annotations

import heapq
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from benchmarks.chaos.parts import REAL_SECONDS, Service, Worker
from benchmarks.chaos.plan import Fault, Kind, kinds_on
from benchmarks.chaos.points import points_of
from benchmarks.chaos.proxy import Proxy
from benchmarks.postgres import Cluster, cluster

LOOK_SECONDS = 0.5
"""Between two questions to the service whether all is done."""
A_JOB_SECONDS = 10.0
"""For each job, before the run is given up: many times what one takes."""
BATCH = 20
ATTEMPTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How large a run is, and of which seed.

    Attributes:
        real: how many of the jobs are trained in earnest. only: what happens, where that is not everything.
    """

    jobs: int = 200
    real: int = 14
    workers: int = 4
    seed: int = 1
    database: str = "SQLite"
    only: frozenset[Kind] | None = None

    @property
    def is_sqlite(self) -> bool:
        return self.database == "SQLite"

    @property
    def kinds(self) -> frozenset[Kind]:
        """What happens."""
        possible = kinds_on(sqlite=self.is_sqlite)
        return possible if self.only is None else possible & self.only

    @property
    def replicas(self) -> int:
        """Services that share the database."""
        return 1 if self.is_sqlite else 2

    @property
    def limit_seconds(self) -> float:
        return 120 + self.jobs * A_JOB_SECONDS + self.real * REAL_SECONDS


class World:
    """What a run is made of; `benchmarks.chaos.run` lets it live.

    Attributes:
        struck: faults that happened, by kind. missed: those that found nothing to happen to. submitted: ids of the
            jobs, in their order. retried: jobs that failed with their evidence, and were queued again as an operator
            would. resent: submissions that were sent twice.
    """

    def __init__(self, setup: Setup, folder: Path, stack: ExitStack) -> None:
        self.setup = setup
        self.folder = folder
        self.ledger = folder / "ledger"
        self.ledger.mkdir()
        self.cluster: Cluster | None = None
        if setup.is_sqlite:
            self.database_url = f"sqlite+aiosqlite:///{folder / 'ctxplan.db'}"
        else:
            self.cluster = stack.enter_context(cluster(durable=True))
            self.database_url = self.cluster.url
        self.services = [
            Service(number, database_url=self.database_url, port=port, folder=folder)
            for number, port in enumerate(stack.enter_context(held_ports(setup.replicas)))
        ]
        self.proxy = stack.enter_context(Proxy(*(service.port for service in self.services)))
        self.workers = [
            Worker(number, url=self.proxy.url, folder=folder, ledger=self.ledger) for number in range(setup.workers)
        ]
        for process in (*self.services, *self.workers):
            stack.callback(process.end)
        self._http = stack.enter_context(httpx.Client(base_url=self.proxy.url, timeout=30, trust_env=False))
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._looked_at = 0.0
        self.struck: Counter[Kind] = Counter()
        self.missed = 0
        self.submitted: list[int] = []
        self.retried = 0
        self.resent = 0

    def measured(self) -> int:
        """How many points stand-ins have measured, whatever became of that."""
        return sum(1 for _ in self.ledger.iterdir())

    def later(self, seconds: float, do: Callable[[], None]) -> None:
        """Do something when so long is over."""
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), do))

    def target(self, fault: Fault, fits: Callable[[Worker], bool]) -> Worker | None:
        """The fault's worker, or the next one that it can happen to."""
        turned = [*self.workers[fault.worker :], *self.workers[: fault.worker]]
        return next((worker for worker in turned if fits(worker)), None)

    def up(self) -> list[Service]:
        """The services that answer."""
        return [service for service in self.services if service.pid is not None and service.is_ready()]

    def is_waiting(self) -> bool:
        """Whether something is to be done later."""
        return bool(self._later)

    def do_what_is_due(self) -> None:
        """Do what was put off until now."""
        while self._later and self._later[0][0] <= time.monotonic():
            heapq.heappop(self._later)[2]()

    def revive(self) -> None:
        """Start the workers and the services again where they have ended, once they have rested."""
        for one in (*self.services, *self.workers):
            if one.pid is None and time.monotonic() >= one.rests_until:
                one.start()

    def submit(self) -> None:
        """Queue the points in batches, each of which is sent until it is answered; some answers are lost."""
        points = points_of(self.setup)
        for number, batch in enumerate(_batches(points, BATCH)):
            if number % 2 == 0:
                self.proxy.lose("submit")
            key = {"idempotency-key": f"batch-{number}"}
            body = {"points": batch, "requires": {"gpu": "cpu", "min_memory_bytes": 0}, "max_attempts": ATTEMPTS}
            self.submitted += [item["id"] for item in self._insist(body, key)["items"]]
        self.proxy.let_be()

    def _insist(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        while True:
            try:
                response = self._http.post("/v1/probe-jobs", json=body, headers=dict(headers))
            except httpx.TransportError:
                self.resent += 1
                continue
            if response.status_code >= 500:
                time.sleep(LOOK_SECONDS)
                continue
            assert response.is_success, response.text
            found: dict[str, Any] = response.json()
            return found

    def all_ended(self) -> bool:
        """Whether every job has succeeded. What failed is queued again: that a job fails is an answer too."""
        if time.monotonic() - self._looked_at < LOOK_SECONDS:
            return False
        self._looked_at = time.monotonic()
        try:
            open_jobs = [job for state in ("queued", "leased") for job in self._jobs(state=state, limit=1)]
            failed = self._jobs(state="failed") if not open_jobs else []
            for job in failed:
                self.retried += self._http.post(f"/v1/probe-jobs/{job['id']}/retry").is_success
        except (httpx.TransportError, httpx.HTTPStatusError):
            return False
        return not open_jobs and not failed

    def _jobs(self, **asked: Any) -> list[dict[str, Any]]:
        response = self._http.get("/v1/probe-jobs", params={"limit": 500, **asked})
        response.raise_for_status()
        items: list[dict[str, Any]] = response.json()["items"]
        return items

    def leave(self) -> None:
        """Ask all to leave: workers send what they still have, and end with 0, or with 4 where the last that they
        asked was not answered."""
        self.proxy.let_be()
        for worker in self.workers:
            worker.send(signal.SIGTERM)
        codes = {worker.name: worker.wait() for worker in self.workers}
        stuck = [worker.described() for worker in self.workers if codes[worker.name] not in (0, 4)]
        assert not stuck, "\n".join(stuck)
        for service in self.services:
            service.send(signal.SIGTERM)
            service.wait()


@contextmanager
def world(setup: Setup, folder: Path) -> Iterator[World]:
    """A world, and in the end nothing that runs. Its database is there until then."""
    with ExitStack() as stack:
        yield World(setup, folder, stack)


def _batches(points: Sequence[Any], size: int) -> Iterator[list[Any]]:
    for first in range(0, len(points), size):
        yield list(points[first : first + size])


@contextmanager
def held_ports(number: int) -> Iterator[list[int]]:
    """Ports of this machine that nobody else is given, also while the service of one is down.

    Each is bound here, and never listened on: a service binds it beside us, since both allow that (``SO_REUSEADDR`` in
    ``socket(7)``), and while none does, connections are refused. Linux gives it to nobody who asks for any port.
    """
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        yield [one.getsockname()[1] for one in sockets]
