"""``ctxplan fleet ray``: a real cluster of Ray on this machine, a real service, and stand-ins for the probes.

Half a minute: Ray starts five processes for each node, and the cluster is started once for all of it.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from app.queue.audit import main as audit
from tests.probes import replay
from tests.probes.children import child
from tests.probes.common import JOB, alive
from tests.probes.fleet.running import JOBS, Cluster, Service, cluster, fleet, new_key, service, within

pytest.importorskip("ray")
pytestmark = pytest.mark.timeout(300)

MODEL = "unsloth/Qwen3-8B-bnb-4bit"
CPU = ("--cpu", "--idle-exit", "1")
ANY = {"requires": {"gpu": "cpu", "min_memory_bytes": 0}}
WELL = """
progress()
tell(f"begun-{os.getpid()}", str(request["points"][0]["job"]["sequence_length"]))
while not os.path.exists(os.path.join(TOLD, "go")):
    time.sleep(0.02)
measured(steps=[STEP] * request["points"][0]["steps"], steps_run=request["points"][0]["steps"])
events.write({"event": "done"})
"""


@pytest.fixture(scope="module")
def two_nodes() -> Iterator[Cluster]:
    with cluster(2) as running:
        yield running


@pytest.fixture(scope="module")
def one_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service(tmp_path_factory.mktemp("service")) as running:
        yield running


@pytest.fixture
def server(one_service: Service) -> Iterator[Service]:
    yield one_service
    assert audit([one_service.environment["CTXPLAN_DATABASE_URL"]]) == 0
    for page in iter(lambda: one_service.http.get(JOBS, params={"state": "queued"}).json()["items"], []):
        for left in page:
            one_service.http.post(f"{JOBS}/{left['id']}/cancellation")


def points(*lengths: int) -> list[dict[str, Any]]:
    return [{"job": {**JOB, "sequence_length": length}} for length in lengths]


def begun(folder: Path) -> set[int]:
    """The stand-ins that measure or have measured, by their processes."""
    return {int(file.name.removeprefix("begun-")) for file in folder.glob("begun-*") if file.suffix != ".part"}


def kinds(job: dict[str, Any]) -> list[str]:
    return [event["kind"] for event in job["events"]]


def jobs_of(server: Service, campaign: int) -> list[dict[str, Any]]:
    items = server.http.get(JOBS, params={"campaign": campaign}).json()["items"]
    return [server.job(item["id"]) for item in items]


def workers(job: dict[str, Any]) -> set[str]:
    return {event["worker"] for event in job["events"] if event["kind"] == "leased"}


@pytest.mark.slow
def test_a_campaign_is_measured_on_the_clusters_h100s_and_the_key_is_in_no_log_of_ray(
    two_nodes: Cluster, server: Service, tmp_path: Path
) -> None:
    key = new_key(server.environment, "work")
    probe = [sys.executable, replay.__file__]
    start = [sys.executable, "-m", "app", "calibrate", "start", MODEL, "--server", server.url, "--watch", "--json"]
    with fleet(tmp_path, two_nodes, server.url, probe, "--gpu", "H100-80GB", key=key, pretending=True) as running:
        run = subprocess.run(start, env=server.environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr + running.told
        running.send(signal.SIGTERM)
        code, report = running.finish()
    campaign = json.loads(run.stdout)
    assert (campaign["state"], campaign["outcome"]["activated"]) == ("done", True), campaign
    assert (code, report["accepted"], report["lives_lost"], report["unable"]) == (0, 3, 0, 0), running.told
    assert report["most_at_once"] == 2
    rows = server.http.get("/v1/measurements", params={"campaign": campaign["id"]}).json()["items"]
    assert {row["document"]["gpu"] for row in rows} == {replay.H100}
    seen = server.http.get("/v1/workers").json()["items"]
    assert {one["id"].rpartition("-")[2] for one in seen} == {node[:12] for node in two_nodes.nodes}
    assert {worker for job in jobs_of(server, campaign["id"]) for worker in workers(job)} == {one["id"] for one in seen}
    logs = [file for file in two_nodes.session.rglob("*") if file.is_file() and not file.is_symlink()]
    assert len(logs) > 10
    assert not [file for file in logs if key.encode() in file.read_bytes()]
    assert key not in running.told


def test_a_node_that_is_gone_costs_an_attempt_and_a_new_one_is_used(
    two_nodes: Cluster, server: Service, tmp_path: Path
) -> None:
    key = new_key(server.environment, "work")
    jobs = server.submit(*points(16, 24, 32, 40), **ANY)
    probe = list(child(tmp_path, WELL))
    with fleet(tmp_path, two_nodes, server.url, probe, *CPU, key=key) as running:
        first = within(lambda: begun(tmp_path) if len(begun(tmp_path)) == 2 else None, "two lives with a job")
        two_nodes.kill(two_nodes.nodes[0])
        gone = within(lambda: [pid for pid in first if not alive(pid)], "the end of its probe")
        two_nodes.add()
        within(lambda: begun(tmp_path) - first, "a life on the new node")
        (tmp_path / "go").touch()
        code, report = running.finish()
    assert (code, report["accepted"], report["lives_lost"]) == (0, 4, 1), running.told
    assert len(gone) == 1
    found = [server.job(id) for id in jobs]
    assert [job["state"] for job in found] == ["succeeded"] * 4
    attempts = sorted(kinds(job).count("leased") for job in found)
    assert attempts == [1, 1, 1, 2]
    kept = [server.http.get("/v1/measurements", params={"job": id}).json()["items"] for id in jobs]
    assert [len(rows) for rows in kept] == [1, 1, 1, 1]


@pytest.mark.slow
def test_asked_to_end_it_finishes_its_points_and_takes_no_other_and_asked_twice_it_gives_them_back(
    two_nodes: Cluster, server: Service, tmp_path: Path
) -> None:
    key = new_key(server.environment, "work")
    jobs = server.submit(*points(16, 24, 32, 40, 48), **ANY)
    probe = list(child(tmp_path, WELL))
    with fleet(tmp_path, two_nodes, server.url, probe, *CPU, key=key) as running:
        within(lambda: len(begun(tmp_path)) == 2, "two lives with a job")
        running.send(signal.SIGTERM)
        within(lambda: "draining" in running.told, "the fleet drains")
        (tmp_path / "go").touch()
        code, report = running.finish()
    assert (code, report["leased"], report["accepted"]) == (0, 2, 2), running.told
    assert sorted(server.states(jobs)) == ["queued"] * 3 + ["succeeded"] * 2

    (tmp_path / "go").unlink()
    before = begun(tmp_path)
    with fleet(tmp_path, two_nodes, server.url, probe, *CPU, key=key) as running:
        probes = within(lambda: new if len(new := begun(tmp_path) - before) == 2 else None, "two more")
        running.send(signal.SIGTERM)
        within(lambda: "draining" in running.told, "the fleet drains")
        running.send(signal.SIGTERM)
        code, report = running.finish()
    assert (code, report["leased"], report["given_back"]) == (0, 2, 2), running.told
    assert not [pid for pid in probes if alive(pid)]
    assert sorted(server.states(jobs)) == ["queued"] * 3 + ["succeeded"] * 2


@pytest.mark.slow
def test_a_key_that_opens_nothing_ends_the_fleet(two_nodes: Cluster, server: Service, tmp_path: Path) -> None:
    with fleet(tmp_path, two_nodes, server.url, ["false"], "--cpu", key=None) as running:
        code, _ = running.finish()
    assert code == 2
    assert "scope work" in running.told.splitlines()[-1]
