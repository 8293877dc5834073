"""The lease protocol as a small service on loopback, which can be away, slow, or lose its answers."""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from probes.points import Point


@dataclass(kw_only=True)
class JobState:
    """One job of the service."""

    point: Point
    state: str = "queued"
    epoch: int = 0
    token: str = ""
    expires_at: float = 0.0
    result: dict[str, Any] | None = None
    late: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    returned: int = 0
    renewals: int = 0

    def holds(self, epoch: int, token: str) -> bool:
        if self.state == "leased" and time.monotonic() > self.expires_at:
            self.state = "queued"
        return self.state == "leased" and (epoch, token) == (self.epoch, self.token)


@dataclass(kw_only=True)
class Service:
    """Its jobs, and how it behaves.

    Attributes:
        down: answers 503 to all. retry_after: says so then. lose_result: the next result is taken, and its answer lost.
        no_job_retry_after: what it says with no job. odd: answers of 200 that are none, by the end of the path, and
        asked_oddly how many were given. hold_result: results wait here before they are looked at. results_sent:
        requests with a result that have come.
    """

    jobs: list[JobState] = field(default_factory=list)
    lease_seconds: float = 30.0
    renew_seconds: float = 0.3
    key: str | None = None
    down: bool = False
    retry_after: int | None = None
    no_job_retry_after: str = "0"
    odd: dict[str, Any] = field(default_factory=dict)
    lose_result: bool = False
    hold_result: threading.Event | None = None
    results_sent: int = 0
    refuse_result: tuple[int, dict[str, Any]] | None = None
    asked: int = 0
    asked_oddly: int = 0
    refused: int = 0
    heartbeats: list[dict[str, Any]] = field(default_factory=list)
    workers: list[dict[str, Any]] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, *points: Point) -> list[JobState]:
        new = [JobState(point=one) for one in points]
        self.jobs += new
        return new

    def answer(self, path: str, headers: Any, body: Any) -> tuple[int, Any]:
        if self.down:
            self.refused += 1
            return 503, {"code": "queue-unavailable", "detail": "away"}
        if self.key and headers.get("authorization") != f"Bearer {self.key}":
            return 401, {"code": "unauthenticated", "detail": "no"}
        parts = path.strip("/").split("/")
        if parts[-1] in self.odd:
            self.asked_oddly += 1
            return 200, self.odd[parts[-1]]
        if parts[1] == "workers":
            self.heartbeats.append(body)
            job = body["job"]
            return 200, {"cancelled": job is not None and self.jobs[job - 1].state == "cancelled"}
        if parts[2] == "leases":
            return self._lease(body["worker"])
        job = self.jobs[int(parts[2]) - 1]
        return self._of_lease(job, parts[-1], int(parts[4]), headers["lease-token"], body)

    def _lease(self, worker: dict[str, Any]) -> tuple[int, Any]:
        self.asked += 1
        self.workers.append(worker)
        for number, job in enumerate(self.jobs, 1):
            job.holds(0, "")
            if job.state == "queued":
                job.state, job.epoch, job.token = "leased", job.epoch + 1, secrets.token_hex(8)
                job.expires_at = time.monotonic() + self.lease_seconds
                return 200, {
                    "job": number,
                    "epoch": job.epoch,
                    "token": job.token,
                    "expires_in_seconds": self.lease_seconds,
                    "renew_after_seconds": self.renew_seconds,
                    "point": job.point.to_json(),
                    "digest": job.point.digest,
                    "time_limit_seconds": 60,
                }
        return 204, None

    def _of_lease(self, job: JobState, what: str, epoch: int, token: str, body: Any) -> tuple[int, Any]:
        lost = 409, {"code": "lease-lost", "detail": "the lease is over"}
        if what == "result":
            self.results_sent += 1
            if self.hold_result is not None:
                self.hold_result.wait(20)
            if self.refuse_result is not None:
                return self.refuse_result
            if job.result == body and token == job.token:
                return 200, {"measurement": 1, "state": "accepted", "quarantined": None}
        if not job.holds(epoch, token):
            if what == "renewal" and job.state == "cancelled":
                return 200, {"expires_in_seconds": 0, "renew_after_seconds": 0, "cancelled": True}
            if what == "result":
                job.late.append(body)
            return lost
        if what == "renewal":
            job.renewals += 1
            job.expires_at = time.monotonic() + self.lease_seconds
            seconds = {"expires_in_seconds": self.lease_seconds, "renew_after_seconds": self.renew_seconds}
            return 200, {**seconds, "cancelled": False}
        if what == "result":
            job.state, job.result = "succeeded", body
            return 201, {"measurement": 1, "state": "accepted", "quarantined": None}
        if what == "failure":
            job.failures.append(body)
            job.state = "queued" if len(job.failures) < 3 else "failed"
            return 200, {"state": job.state}
        job.state, job.returned = "queued", job.returned + 1
        return 200, {"state": "queued"}


@contextmanager
def listening(service: Service) -> Iterator[Service]:
    """The service on loopback, on the port that it had before, if any."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers.get("content-length") or 0))
            body = json.loads(content) if content else None
            is_result = self.path.endswith("/result")
            if is_result and service.hold_result is not None:
                status, document = service.answer(self.path, self.headers, body)
            else:
                with lock:
                    status, document = service.answer(self.path, self.headers, body)
            if is_result and service.lose_result and status == 201:
                service.lose_result = False
                self.close_connection = True
                return
            answer = b"" if document is None else json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            wait = service.no_job_retry_after if status == 204 else service.retry_after if status == 503 else None
            if wait is not None:
                self.send_header("retry-after", str(wait))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    class Loopback(ThreadingHTTPServer):
        daemon_threads = True
        allow_reuse_address = True

        def handle_error(self, *_: Any) -> None:
            "A client that was killed in the middle."

    server = Loopback(("127.0.0.1", service.port), Handler)
    service.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
