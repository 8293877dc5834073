"""The service beside a bare FastAPI route, both real uvicorn processes on loopback, driven in turns by the
same client."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from statistics import median
from threading import Thread
from typing import IO

from benchmarks.client import requests_per_second
from benchmarks.results import Result
from benchmarks.sample import BODY

SERVICE = [sys.executable, "-m", "app", "serve", "--port", "0"]
BARE = [sys.executable, "-m", "benchmarks.bare"]
PATH = "/v1/estimates"
ROUNDS, REQUESTS = 21, 400


def http_results() -> list[Result]:
    """Measure both in turns, so that what else the machine does falls on both."""
    service_rates, bare_rates = [], []
    with served(SERVICE) as service, served(BARE) as bare:
        for port in (service, bare):
            requests_per_second(port, PATH, BODY, requests=REQUESTS)
        for _ in range(ROUNDS):
            bare_rates.append(requests_per_second(bare, PATH, BODY, requests=REQUESTS))
            service_rates.append(requests_per_second(service, PATH, BODY, requests=REQUESTS))
        contexts = requests_per_second(service, "/v1/max-context", BODY, requests=200)
    ratio = median(ours / bare for ours, bare in zip(service_rates, bare_rates, strict=True))
    return [
        Result(what="bare FastAPI route, same models", measured=median(bare_rates), unit="req/s"),
        Result(what="POST /v1/estimates", measured=median(service_rates), unit="req/s"),
        Result(what="the second over the first", measured=ratio, unit="", limit=0.6, better="above"),
        Result(what="POST /v1/max-context", measured=contexts, unit="req/s"),
    ]


@contextmanager
def served(command: list[str]) -> Iterator[int]:
    """As `serving`, and its port alone."""
    with serving(command) as (port, _):
        yield port


@contextmanager
def serving(command: list[str]) -> Iterator[tuple[int, int]]:
    """Run a server that says on standard error where it listens, and give its port and its process. Its log is read
    and thrown away."""
    with subprocess.Popen(command, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        try:
            yield _port(process.stderr), process.pid
        finally:
            process.terminate()


def _port(log: IO[bytes]) -> int:
    lines = []
    for line in log:
        lines.append(line)
        found = re.search(rb'"address": "http://127\.0\.0\.1:(\d+)"', line)
        if found:
            Thread(target=_drain, args=(log,), daemon=True).start()
            return int(found.group(1))
    raise SystemExit(f"the server did not start: {b''.join(lines).decode()}")


def _drain(log: IO[bytes]) -> None:
    with suppress(ValueError, OSError):  # closed while it waited
        while os.read(log.fileno(), 2**16):
            pass
