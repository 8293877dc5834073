"""A campaign from the request to the estimate that names its calibration, all of it in processes of their own.

Two workers measure two real points on Unsloth's CPU backend at the same service, half a minute in which torch is
imported twice: no byte of these is ever fitted. What is fitted are committed measurements of an H100, which two more
workers answer the leased points with.
"""

from __future__ import annotations

import importlib.util
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.queue.audit import main as audit
from ctxplan.calibrations import shipped
from tests.app.measuring import JOBS, MEASUREMENTS
from tests.probes import pretended
from tests.probes.common import addresses, started, wait_for
from tests.probes.tiny import tiny_job

MODEL = "unsloth/Qwen3-8B-bnb-4bit"
ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 150
WORKER = [sys.executable, "-m", "app", "worker"]
PRETENDED = [sys.executable, pretended.__file__]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    ours = {
        "CTXPLAN_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'ctxplan.db'}",
        "CTXPLAN_CALIBRATIONS": str(tmp_path / "calibrations"),
        "CTXPLAN_SWEEP_SECONDS": "0.2",
        "CTXPLAN_EVENT_SECONDS": "0.05",
        "CTXPLAN_ALLOW_HUB": "false",
        "CTXPLAN_MAX_LAG_MS": "10000",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(tmp_path),
    }
    return {**os.environ, **ours}


@pytest.fixture
def server(tmp_path: Path, environment: dict[str, str]) -> Iterator[str]:
    log = tmp_path / "service.log"
    with started([sys.executable, "-m", "app", "serve", "--port", "0"], log, environment):
        yield within(lambda: addresses(log.read_text()), "the service")[0]
    assert "Traceback" not in log.read_text()


@pytest.fixture
def client(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server, timeout=PATIENCE_SECONDS, trust_env=False) as client:
        yield client


def within(look: Callable[[], Any], what: str) -> Any:
    """What is seen, once there is something."""
    return wait_for(look, what, seconds=PATIENCE_SECONDS, every=0.05)


def measure_on_the_cpu(client: httpx.Client, server: str, tmp_path: Path, environment: dict[str, str]) -> list[Any]:
    """Have two workers train two tiny models; the measurements."""
    points = [{"job": tiny_job(max_seq_length=length), "steps": 2} for length in (64, 96)]
    sent = client.post(JOBS, json={"points": points, "requires": {"gpu": "cpu", "min_memory_bytes": 0}})
    assert sent.status_code == 201, sent.text
    with ExitStack() as stack:
        running = []
        for name in ("one", "two"):
            worker = [*WORKER, "--server", server, "--cpu", "--once", "--id", name, "--spool", str(tmp_path / name)]
            running.append(stack.enter_context(started(worker, tmp_path / f"{name}.log", environment)))
        codes = [worker.wait(PATIENCE_SECONDS) for worker in running]
    assert codes == [0, 0], (tmp_path / "one.log").read_text() + (tmp_path / "two.log").read_text()
    jobs = [client.get(f"{JOBS}/{item['id']}").json() for item in sent.json()["items"]]
    assert {event["worker"] for job in jobs for event in job["events"] if event["kind"] == "leased"} == {"one", "two"}
    found: list[Any] = client.get(MEASUREMENTS).json()["items"]
    return found


def answers_with(client: httpx.Client) -> str:
    return str(client.post("/v1/estimates", json={"model": MODEL}).json()["calibration"]["id"])


@pytest.mark.unsloth
@pytest.mark.skipif(importlib.util.find_spec("unsloth") is None, reason="Unsloth is not installed")
def test_a_campaign_ends_in_an_estimate_that_names_its_calibration_and_no_cpu_row_is_fitted(
    client: httpx.Client, server: str, tmp_path: Path, environment: dict[str, str]
) -> None:
    trained = measure_on_the_cpu(client, server, tmp_path, environment)
    for one in trained:
        document = one["document"]
        assert (one["state"], document["outcome"], document["execution_path"]) == ("accepted", "ok", "cpu"), one
        assert all(step["loss"] > 0 for step in document["steps"])
    before = answers_with(client)
    assert before == shipped().id

    options = ["--server", server, "--max-jobs", "2"]  # neither can do all three
    with ExitStack() as stack:
        for name in ("h100-1", "h100-2"):
            worker = [*PRETENDED, name, "worker", *options, "--id", name, "--spool", str(tmp_path / name)]
            stack.enter_context(started(worker, tmp_path / f"{name}.log", environment))
        command = [sys.executable, "-m", "app", "calibrate", "start", MODEL, "--server", server, "--watch", "--json"]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    campaign = json.loads(run.stdout)
    assert (campaign["state"], campaign["outcome"]["activated"]) == ("done", True), campaign
    assert "active from now on" in run.stderr

    within(lambda: answers_with(client) == campaign["calibration"], "an estimate by the new calibration")
    rows = client.get(MEASUREMENTS, params={"campaign": campaign["id"]}).json()["items"]
    digests = {job["digest"] for job in client.get(JOBS, params={"campaign": campaign["id"]}).json()["items"]}
    assert {row["document"]["point"] for row in rows} == digests
    assert {row["document"]["gpu"] for row in rows} == {"NVIDIA H100 80GB HBM3"}
    fitted = kept_digests(environment, campaign["calibration"])
    assert digests <= fitted
    assert not {one["point"] for one in trained} & fitted
    assert audit([environment["CTXPLAN_DATABASE_URL"]]) == 0


def kept_digests(environment: dict[str, str], calibration: str) -> set[str]:
    """The points that a calibration was fitted to."""
    (file,) = Path(environment["CTXPLAN_CALIBRATIONS"]).rglob(f"*{calibration.removeprefix('sha256-')}*.json")
    return set(json.loads(file.read_text())["digests"])


@pytest.mark.slow
def test_the_script_for_a_gpu_host_keeps_what_happened(tmp_path: Path, environment: dict[str, str]) -> None:
    command = tmp_path / "bin" / "ctxplan"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{pretended.__file__}" GPU-3 "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    out = tmp_path / "out"
    run = subprocess.run(
        [sys.executable, "scripts/gpu_campaign", str(out), MODEL, "--activate", "always"],
        env={**environment, "PATH": f"{command.parent}:{environment['PATH']}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    campaign = json.loads((out / "campaign.json").read_text())
    estimates = json.loads((out / "estimates.json").read_text())
    assert estimates["before"]["calibration"]["id"] == shipped().id
    assert estimates["after"]["calibration"]["id"] == campaign["calibration"]
    assert json.loads((out / "calibration.json").read_text())["id"] == campaign["calibration"]
    jobs = [json.loads(line) for line in (out / "jobs.jsonl").read_text().splitlines()]
    assert [[event["kind"] for event in job["events"]] for job in jobs] == [["submitted", "leased", "succeeded"]] * 3
    assert len((out / "measurements.jsonl").read_text().splitlines()) == 3
    assert json.loads((out / "audit.json").read_text())["findings"] == []
    assert "measuring: 3 queued" in (out / "events.log").read_text()
    assert str(tmp_path) not in (out / "campaign.json").read_text()


def test_the_script_for_a_gpu_host_says_where_there_is_none(tmp_path: Path, environment: dict[str, str]) -> None:
    command = tmp_path / "bin" / "ctxplan"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m app "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    run = subprocess.run(
        [sys.executable, "scripts/gpu_campaign", str(tmp_path / "out"), MODEL],
        env={**environment, "PATH": f"{command.parent}:{environment['PATH']}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 1
    assert "there is no GPU here" in run.stderr
