"""A service with a queue of its own, and what a worker sends it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from app.database import Database
from app.main import create_app
from app.queue.audit import audit
from app.settings import Settings
from probes.points import parse_point
from tests.app.database.servers import remove_rows
from tests.app.jobs import FITS, MODEL
from tests.probes.documents import believable

JOBS, LEASES, WORKERS = "/v1/probe-jobs", "/v1/probe-jobs/leases", "/v1/workers"
MEASUREMENTS, CAMPAIGNS = "/v1/measurements", "/v1/campaigns"
POINT: dict[str, Any] = {"job": {"model": MODEL, "max_seq_length": 2048, "num_hidden_layers": 4}}
WORKER: dict[str, Any] = {
    "id": "w1",
    "name": "a card",
    "gpu": "NVIDIA H100 80GB HBM3",
    "total_bytes": 85_017_493_504,
    "driver": "580.1",
    "versions": {"torch": "2.11.0", "xformers": None},
}
MakeService = Callable[..., Any]


@contextmanager
def service(url: str, folder: Path, **changes: Any) -> Iterator[TestClient]:
    """A client of a service on a database; when it has ended, its tables and their history agree."""
    settings: dict[str, Any] = {
        "allow_hub": False,
        "log_level": "error",
        "database_url": url,
        "calibrations": folder / "calibrations",
        "sweep_seconds": 3600,
        "event_seconds": 0.02,
        "max_lag_ms": 10_000,  # what else this machine does is no load of the service's
    }
    try:
        with TestClient(create_app(Settings(**{**settings, **changes}))) as client:
            yield client
    finally:
        asyncio.run(_end(url))


async def _end(url: str) -> None:
    database = Database(url)
    try:
        findings = (await audit(database)).findings
        await remove_rows(database)
    finally:
        await database.dispose()
    assert findings == ()


def point(length: int = 2048, **changes: Any) -> dict[str, Any]:
    """A point of a known model, of one length."""
    return {**POINT, "job": {**POINT["job"], "max_seq_length": length}, **changes}


def submit(client: Any, *points: dict[str, Any], **body: Any) -> list[dict[str, Any]]:
    """Queue some points, by default one."""
    response = client.post(JOBS, json={"points": list(points) or [POINT], **body})
    assert response.status_code == 201, response.text
    items: list[dict[str, Any]] = response.json()["items"]
    return items


def lease(client: Any, **facts: Any) -> dict[str, Any]:
    """Lease a job."""
    response = client.post(LEASES, json={"worker": {**WORKER, **facts}})
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def send(client: Any, held: dict[str, Any], what: str, body: Any = None, *, token: str | None = None) -> Any:
    """Do something with a lease."""
    url = f"{JOBS}/{held['job']}/leases/{held['epoch']}/{what}"
    return client.post(url, json=body, headers={"lease-token": token or held["token"]})


def result_of(held: dict[str, Any], *, off: float = 0.0, **changes: Any) -> dict[str, Any]:
    """What a lease's point could have given: what is expected of it, and so much more."""
    return believable(parse_point(held["point"]), times=1 + off, **changes).model_dump(mode="json")


def answers_with(client: Any) -> str:
    """The calibration that an estimate is made with now."""
    return str(client.post("/v1/estimates", json=FITS).json()["calibration"]["id"])
