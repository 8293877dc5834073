"""``ctxplan worker`` and ``ctxplan serve``, both as users start them: what each leaves with the other.

Processes of their own, which take seconds to start; the service is shared by the tests, each of which has jobs of its
own. `tests.probes.worker` has the worker's life in detail, against a service that misbehaves.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.queue.audit import main as audit
from benchmarks.chaos.proxy import Proxy
from probes.points import Point
from probes.worker.stopping import DRAINS
from tests.app.measuring import JOBS, MEASUREMENTS
from tests.probes import pretended
from tests.probes.common import addresses, alive, point, points, read_number, wait_for
from tests.probes.tiny import tiny_job
from tests.probes.worker.processes import ROOT, worker

PATIENCE_SECONDS = 120
CANCELLED_WITHIN_SECONDS = 10
WELL = 'tell("begun", "yes")\nmeasured()\nevents.write({"event": "done"})\n'
SLOW = 'tell("begun", "yes")\nwhile not os.path.exists(os.path.join(TOLD, "go")):\n    time.sleep(0.02)\n' + WELL
STUBBORN = (
    'helper = subprocess.Popen(["sleep", "600"])\ntell("helper", str(helper.pid))\n'
    'signal.signal(signal.SIGTERM, signal.SIG_IGN)\ntell("probe", str(os.getpid()))\nhang()\n'
)

pytestmark = pytest.mark.timeout(300)


@dataclass(kw_only=True)
class Live:
    """A service's process."""

    http: httpx.Client
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def submit(self, *asked: Point | dict[str, Any]) -> list[int]:
        documents = [one.to_json() if isinstance(one, Point) else one for one in asked]
        body = {"points": documents, "requires": {"gpu": "cpu", "min_memory_bytes": 0}}
        answer = self.http.post(JOBS, json=body)
        assert answer.status_code == 201, answer.text
        return [item["id"] for item in answer.json()["items"]]

    def job(self, id: int) -> dict[str, Any]:
        found: dict[str, Any] = self.http.get(f"{JOBS}/{id}").json()
        return found

    def kinds(self, id: int) -> list[str]:
        return [event["kind"] for event in self.job(id)["events"]]

    def rows(self, id: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.http.get(MEASUREMENTS, params={"job": id}).json()["items"]
        return found

    def cancel(self, id: int) -> None:
        self.http.post(f"{JOBS}/{id}/cancellation").raise_for_status()


@contextmanager
def serving(folder: Path, **settings: str) -> Iterator[Live]:
    """A service with its defaults, but for where it keeps things; its database's history is audited at the end."""
    database = f"sqlite+aiosqlite:///{folder / 'ctxplan.db'}"
    ours = {
        "CTXPLAN_DATABASE_URL": database,
        "CTXPLAN_CALIBRATIONS": str(folder / "calibrations"),
        "CTXPLAN_ALLOW_HUB": "false",
        "CTXPLAN_MAX_LAG_MS": "10000",  # what else this machine does is no load of the service's
        "HF_HUB_OFFLINE": "1",
    }
    log = folder / "service.log"
    command = [sys.executable, "-m", "app", "serve", "--port", "0"]
    environment = {**os.environ, **ours, **settings}
    with log.open("wb") as said, subprocess.Popen(command, cwd=ROOT, env=environment, stdout=said, stderr=said) as one:
        try:
            url = within(lambda: addresses(log.read_text()), "the service")[0]
            with httpx.Client(base_url=url, timeout=60, trust_env=False) as http:
                yield Live(http=http, port=int(url.rpartition(":")[2]))
        finally:
            one.terminate()
            try:
                one.wait(30)
            finally:
                one.kill()
    assert "Traceback" not in log.read_text()
    assert audit([database]) == 0


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("service")) as one:
        yield one


def within(look: Callable[[], Any], what: str, *, seconds: float = PATIENCE_SECONDS) -> Any:
    """What is seen, once there is something."""
    return wait_for(look, what, seconds=seconds, every=0.05)


def below(pid: int) -> set[int]:
    """The processes that a process has started, and those that these have."""
    parents: dict[int, int] = {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(file.parent.name)] = int(file.read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
    found: set[int] = set()
    while more := {one for one, parent in parents.items() if parent in found | {pid}} - found:
        found |= more
    return found


def is_gone(pids: set[int]) -> bool:
    return not any(alive(pid) for pid in pids)


def test_a_cancelled_job_ends_the_probe_with_all_that_it_started_within_ten_seconds(live: Live, tmp_path: Path) -> None:
    """By the service's defaults: its lease of a minute is renewed every 20 seconds."""
    (job,) = live.submit(point())
    with worker(tmp_path, live.url, STUBBORN, "--max-jobs", "1") as one:
        read_number(tmp_path / "probe")
        pids = below(one.process.pid) | {read_number(tmp_path / "helper")}
        assert len(pids) >= 4  # what measures, its leash, the probe and its helper
        live.cancel(job)
        within(lambda: is_gone(pids), "the probe's process group is gone", seconds=CANCELLED_WITHIN_SECONDS)
        code, summary, _ = one.finish()
    assert (code, summary["cancelled"], summary["failed"]) == (0, 1, 0)
    assert (live.job(job)["state"], live.rows(job)) == ("cancelled", [])


@pytest.mark.unsloth
@pytest.mark.skipif(importlib.util.find_spec("unsloth") is None, reason="Unsloth is not installed")
def test_a_real_probe_is_cancelled_on_its_way_and_the_next_ends_well_while_its_worker_drains(
    live: Live, tmp_path: Path
) -> None:
    """Two processes that import torch and Unsloth, about ten seconds each: nothing less shows that real ones end so."""
    lengths = (64, 96, 128)
    jobs = live.submit(*({"job": tiny_job(max_seq_length=length), "steps": 2} for length in lengths))
    with worker(tmp_path, live.url, None) as one:
        leased = within(lambda: [job for job in jobs if live.job(job)["state"] == "leased"], "a lease")[0]
        pids = within(lambda: len(found := below(one.process.pid)) >= 3 and found, "the probe")
        live.cancel(leased)
        within(lambda: is_gone(pids), "the probe's process group is gone", seconds=CANCELLED_WITHIN_SECONDS)
        second = within(lambda: [job for job in jobs if live.job(job)["state"] == "leased"], "the next lease")[0]
        one.send(signal.SIGTERM)
        code, summary, told = one.finish(seconds=PATIENCE_SECONDS)
    assert (code, summary["cancelled"], summary["accepted"], summary["leased"]) == (0, 1, 1, 2), told
    (third,) = set(jobs) - {leased, second}
    assert [live.job(job)["state"] for job in (leased, second, third)] == ["cancelled", "succeeded", "queued"]
    (row,) = live.rows(second)
    document = row["document"]
    assert (row["state"], document["outcome"], document["execution_path"]) == ("accepted", "ok", "cpu")
    assert all(step["loss"] > 0 for step in document["steps"])
    live.cancel(third)


def test_told_to_stop_it_ends_its_point_whose_result_nothing_speaks_against_and_takes_no_other(
    live: Live, tmp_path: Path
) -> None:
    jobs = live.submit(*points(16, 32))
    with worker(tmp_path, live.url, SLOW, "--id", "the-one") as one:
        one.wait_until_measuring(tmp_path)
        one.send(signal.SIGTERM)
        one.wait_until_told(DRAINS)
        (tmp_path / "go").touch()
        code, summary, _ = one.finish()
    assert (code, summary["accepted"], summary["leased"], summary["waiting"]) == (0, 1, 1, 0)
    measured, queued = sorted(jobs, key=lambda job: len(live.kinds(job)), reverse=True)
    assert (live.kinds(measured), live.kinds(queued)) == (["submitted", "leased", "succeeded"], ["submitted"])
    (row,) = live.rows(measured)
    assert (row["state"], row["document"]["point"]) == ("accepted", live.job(measured)["digest"])
    workers = {each["id"]: each["gpu"] for each in live.http.get("/v1/workers").json()["items"]}
    assert workers["the-one"] == "cpu"
    live.cancel(queued)


def test_killed_it_takes_the_probe_with_it_and_its_next_life_reports_it_before_the_lease_is_over(
    live: Live, tmp_path: Path
) -> None:
    (job,) = live.submit(point())
    with worker(tmp_path, live.url, STUBBORN) as one:
        read_number(tmp_path / "probe")
        pids = below(one.process.pid) | {read_number(tmp_path / "helper")}
        one.send(signal.SIGKILL)
        within(lambda: is_gone(pids), "the probe is gone with its worker", seconds=CANCELLED_WITHIN_SECONDS)
    with worker(tmp_path, live.url, WELL, "--max-jobs", "1") as one:
        assert one.finish()[1]["accepted"] == 1
    events = live.job(job)["events"]
    assert [event["kind"] for event in events] == ["submitted", "leased", "attempt_failed", "leased", "succeeded"]
    assert "worker-died" in json.dumps(events[2])


def test_a_result_whose_answer_was_lost_is_kept_over_a_kill_and_counts_once(live: Live, tmp_path: Path) -> None:
    (job,) = live.submit(point())
    with Proxy(live.port) as proxy:
        for _ in range(50):  # every try, until it is killed
            proxy.lose("result")
        with worker(tmp_path, proxy.url, SLOW, "--max-jobs", "1") as one:
            one.wait_until_measuring(tmp_path)
            (tmp_path / "go").touch()
            within(lambda: live.job(job)["state"] == "succeeded", "the service has it")
            within(lambda: proxy.lost["result"], "the answer is lost")
            assert len(one.files("results")) == 1
            one.send(signal.SIGKILL)
        proxy.let_be()
        with worker(tmp_path, proxy.url, WELL, "--once") as one:
            _, summary, _ = one.finish()
    assert (summary["duplicate"], summary["leased"], summary["waiting"]) == (1, 0, 0)
    assert live.kinds(job) == ["submitted", "leased", "succeeded"]
    assert len(live.rows(job)) == 1


def test_a_frozen_worker_is_too_late_and_goes_on(tmp_path: Path) -> None:
    """Its probe ends while it is frozen, after the shortest lease that there is."""
    folder = tmp_path / "service"
    folder.mkdir()
    with serving(folder, CTXPLAN_LEASE_SECONDS="5", CTXPLAN_SWEEP_SECONDS="0.1") as live:
        (job,) = live.submit(point())
        with worker(tmp_path, live.url, SLOW, "--max-jobs", "2") as one:
            one.wait_until_measuring(tmp_path)
            pids = below(one.process.pid)
            one.send(signal.SIGSTOP)
            within(lambda: live.job(job)["state"] == "queued", "the lease runs out")
            (tmp_path / "go").touch()
            within(lambda: is_gone(pids), "the probe has ended well")
            one.send(signal.SIGCONT)
            code, summary, told = one.finish()
        assert (code, summary["late"], summary["accepted"]) == (0, 1, 1), told
        (kept,) = one.files("refused")
        assert json.loads(kept.read_text())["answer"]["code"] == "lease-lost"
        assert live.job(job)["state"] == "succeeded"
        assert live.kinds(job) == ["submitted", "leased", "lease_lost", "late_result", "leased", "succeeded"]
        assert [row["state"] for row in live.rows(job)] == ["accepted"]


def test_a_second_worker_on_one_card_is_told_who_has_it(live: Live, tmp_path: Path) -> None:
    command = [sys.executable, pretended.__file__, "GPU-of-this-test", "worker", "--server", live.url]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    first_log = tmp_path / "first.log"
    first = [*command, "--id", "first", "--spool", str(tmp_path / "first")]
    second = [*command, "--id", "second", "--spool", str(tmp_path / "second"), "--once"]
    with first_log.open("wb") as said, subprocess.Popen(first, env=environment, stdout=said, stderr=said) as holder:
        try:
            within(lambda: "works for" in first_log.read_text(), "the first has the card")
            refused = subprocess.run(second, env=environment, capture_output=True, text=True, check=False, timeout=60)
        finally:
            holder.kill()
            holder.wait()
        freed = subprocess.run(second, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode == 2
    assert f"GPU GPU-of-this-test is taken by another worker, process {holder.pid}" in refused.stderr
    assert freed.returncode == 0, freed.stderr
