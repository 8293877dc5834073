"""A real service on loopback for the browser, and what happens in its queue."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import uvicorn

from app.keys.form import new_key
from app.listen import listen
from app.main import create_app
from app.settings import Settings
from tests.app.jobs import MODEL
from tests.app.measuring import JOBS, WORKERS, lease, point, result_of, send, submit


@contextmanager
def serving(folder: Path, **changes: Any) -> Iterator[str]:
    """The address of a service with a database of its own in a folder."""
    values: dict[str, Any] = {
        "allow_hub": False,
        "log_level": "error",
        "calibrations": folder / "calibrations",
        "database_url": f"sqlite+aiosqlite:///{folder}/ctxplan.db",
        "event_seconds": 0.05,
        "max_lag_ms": 10_000,  # the browser and the tests keep the machine busy by themselves
    }
    listening = listen("127.0.0.1", 0)
    app = create_app(Settings(**{**values, **changes}))
    server = uvicorn.Server(
        uvicorn.Config(app, log_config=None, log_level="error", access_log=False, timeout_graceful_shutdown=5)
    )
    thread = Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    try:
        # A key that may be one has to be looked up, so that the answer waits for the database: two services of one
        # process must not make theirs at once.
        refused = httpx.get(f"{address}/v1/models", headers={"authorization": f"Bearer {new_key()}"}, timeout=60)
        assert refused.status_code == 401, refused.text
        yield address
    finally:
        app.state.stopping.set()
        server.should_exit = True
        thread.join()


class Queue:
    """What machines elsewhere do to a service's queue."""

    def __init__(self, http: httpx.Client) -> None:
        self.http = http

    def begin(self, model: str = MODEL) -> int:
        """Begin a campaign, and give its number. What it makes is not to answer: the other pages stay as they are."""
        response = self.http.post(JOBS, json={"calibrate": model, "activate": "never"})
        assert response.status_code == 201, response.text
        return int(response.json()["campaign"])

    def submit(self, *lengths: int) -> list[int]:
        """Queue a job of each length."""
        return [one["id"] for one in submit(self.http, *(point(length) for length in lengths))]

    def lease(self, **facts: Any) -> dict[str, Any]:
        """Be given a job."""
        return lease(self.http, **facts)

    def give(self, held: dict[str, Any], **how: Any) -> None:
        """Give what a job measured, in three steps that took the same."""
        document = result_of(held, **how)
        peak = document["peak_allocated_bytes"]
        steps = [{**document["steps"][0], "peak_allocated_bytes": peak, "loss": 2 - number / 8} for number in range(3)]
        document.update(steps=steps, steps_run=len(steps))
        assert send(self.http, held, "result", document).status_code == 201

    def fail(self, held: dict[str, Any], why: str, *, retriable: bool = True) -> None:
        """Say that an attempt gave nothing."""
        body = {"why": why, "detail": {"exit_code": -9}, "retriable": retriable}
        assert send(self.http, held, "failure", body).status_code == 200

    def drain(self, worker: str, *, draining: bool = True) -> None:
        """Give a worker no further job, or jobs again."""
        assert self.http.post(f"{WORKERS}/{worker}/draining", json={"draining": draining}).status_code == 200


@contextmanager
def queue_of(service: str) -> Iterator[Queue]:
    with httpx.Client(base_url=service, timeout=60, trust_env=False) as http:
        yield Queue(http)


def furnish(service: str) -> dict[str, int]:
    """Let something happen in an empty queue: what the pictures show. The numbers of what there is to look at."""
    with queue_of(service) as queue:
        ended = queue.begin()
        jobs = queue.http.get(f"/v1/campaigns/{ended}").json()["points"]
        for number in range(jobs):
            queue.give(queue.lease(), off=0.001 * number)
        going = queue.begin("Qwen/Qwen3-8B")
        first = queue.lease(id="w2", name="rented H100, Oregon")
        queue.give(first, off=0.004)
        odd = queue.lease()
        queue.give(odd, off=0.6)
        queue.submit(4096, 8192)
        held = queue.lease(id="w2", name="rented H100, Oregon")
        queue.fail(held, "crashed")
        queue.lease(id="w2", name="rented H100, Oregon")
        queue.lease(id="w3", name="the old machine")
        queue.drain("w3")
        numbers = {"job": first["job"], "quarantined": odd["job"], "crashed": held["job"]}
        return {"ended": ended, "going": going, **numbers}
