"""The library and the command line: one estimate, one longest context, one import, one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import estimator
from benchmarks.results import Result
from benchmarks.sample import DENSE, JOB, TANGLED
from ctxplan import Planner
from estimator import parse_job

IMPORT = "import time; start = time.perf_counter(); import estimator; print(time.perf_counter() - start)"


def library_results() -> list[Result]:
    """Measure what runs without a server."""
    job = parse_job(JOB)
    architecture = Planner(offline=True).facts(job.model).architecture
    estimates = call_seconds(lambda: estimator.estimate(job, architecture), calls=500)
    contexts = call_seconds(lambda: estimator.max_context(job, architecture), calls=30)
    dense, tangled = plan_seconds(DENSE), plan_seconds(TANGLED)
    return [
        Result(what="one estimate, in the library", measured=estimates * 1e6, unit="us", limit=150),
        Result(what="one longest context, in the library", measured=contexts * 1e3, unit="ms", limit=3),
        Result(what="one plan, a dense 70B, in the library", measured=dense * 1e3, unit="ms", limit=50),
        Result(what="one plan, every knob turned the wrong way", measured=tangled * 1e3, unit="ms", limit=50),
        Result(what="import estimator", measured=import_seconds() * 1e3, unit="ms", limit=50),
        Result(
            what="ctxplan estimate --json, the process",
            measured=process_seconds("estimate", "--json"),
            unit="s",
            limit=0.4,
        ),
        Result(
            what="ctxplan estimate for a person, the process", measured=process_seconds("estimate"), unit="s", limit=0.4
        ),
        Result(
            what="ctxplan preflight --json, the process",
            measured=process_seconds("preflight", "--json"),
            unit="s",
            limit=0.5,
        ),
    ]


def plan_seconds(data: Mapping[str, Any]) -> float:
    """Seconds of the whole search for what to change in a job."""
    job, planner = parse_job(data), Planner(offline=True)
    facts = planner.facts(job.model)
    return call_seconds(lambda: planner.plan(job, facts), calls=5)


def call_seconds(call: Callable[[], object], *, calls: int, rounds: int = 7) -> float:
    """Seconds of one call: the median over rounds, each the mean of ``calls``."""
    call()
    seconds = []
    for _ in range(rounds):
        start = perf_counter()
        for _ in range(calls):
            call()
        seconds.append((perf_counter() - start) / calls)
    return median(seconds)


def import_seconds(rounds: int = 9) -> float:
    """Seconds that a fresh interpreter takes to import the library, its bytecode cached as after an installation."""
    return median(float(_run([sys.executable, "-c", IMPORT])) for _ in range(rounds))


def process_seconds(name: str, *flags: str, rounds: int = 9) -> float:
    """Seconds of a whole command that is given a job, from start to exit."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "job.json"
        file.write_text(json.dumps(JOB))
        command = [sys.executable, "-m", "app", name, str(file), "--offline", *flags]
        seconds = []
        for _ in range(rounds):
            start = perf_counter()
            _run(command)
            seconds.append(perf_counter() - start)
    return median(seconds)


def _run(command: list[str]) -> str:
    cached = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=cached)
    if done.returncode not in (0, 1, 3):
        raise SystemExit(f"{' '.join(command)} failed: {done.stderr}")
    return done.stdout
