"""``ctxplan fleet slurm --submit`` with Slurm itself, where it is installed: a dozen seconds.

The nodes' H100 are files, as far as Slurm knows whole GPUs; the workers find none, and stand-ins measure.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.probes.children import child
from tests.probes.common import points
from tests.probes.fleet import site
from tests.probes.fleet.running import ROOT, within
from tests.probes.worker.service import Service, listening

pytestmark = pytest.mark.skipif(site.missing() is not None, reason=str(site.missing()))

KEY = "ctxp_the_key_of_the_workers_00"
SLOW = """
tell(f"begun-{os.getpid()}", os.environ.get("CUDA_VISIBLE_DEVICES", "none"))
while not os.path.exists(os.path.join(TOLD, "go")):
    time.sleep(0.02)
measured()
events.write({"event": "done"})
"""


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    with site.slurm(tmp_path) as found:
        yield found


@pytest.fixture
def service() -> Iterator[Service]:
    with listening(Service(key=KEY)) as one:
        yield one


def submitted(tmp_path: Path, environment: dict[str, str], url: str, *options: str) -> str:
    """The job's number."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "ctxplan").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m app "$@"\n')
    (tools / "ctxplan").chmod(0o755)
    (tmp_path / "key").write_text(KEY + "\n")
    show = 'scontrol show job --details "$SLURM_JOB_ID" | grep -E "GRES|TimeLimit"'
    setup = [f"export PATH={tools}:$PATH PYTHONPATH={ROOT}", show]
    command = [sys.executable, "-m", "app", "fleet", "slurm", "--server", url, "--cpus", "1", "--memory", "1"]
    command += ["--key-file", str(tmp_path / "key"), "--state", str(tmp_path / "kept"), "--submit"]
    command += ["--log", str(tmp_path / "%A_%a.log"), *(word for line in setup for word in ("--setup", line)), *options]
    around = {**environment, "PYTHONPATH": str(ROOT), "CTXPLAN_API_KEY": "ctxp_of_who_submits"}
    run = subprocess.run(command, env=around, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout == ""
    (number,) = re.findall(r"sbatch answers: (\d+)", run.stderr)
    return str(number)


def test_an_array_of_workers_measures_and_scancel_drains_it(
    tmp_path: Path, environment: dict[str, str], service: Service
) -> None:
    jobs = service.add(*points(16, 32, 48))
    probe = " ".join(child(tmp_path, SLOW))
    job = submitted(tmp_path, environment, service.url, "--cpu", "--workers", "2", "--probe-command", probe)
    within(lambda: len(list(tmp_path.glob("begun-*"))) >= min(2, os.cpu_count() or 1), "its workers measure")
    site.answer(["scancel", "--batch", "--signal=TERM", job], environment)
    within(lambda: len(service.heartbeats) >= 1, "a heartbeat")
    (tmp_path / "go").touch()
    within(lambda: not site.answer(["squeue", "--noheader", "--job", job], environment), "the end of the job")
    states = [one.state for one in jobs]
    assert states.count("succeeded") == min(2, os.cpu_count() or 1)
    logs = "".join(file.read_text() for file in tmp_path.glob(f"{job}_*.log"))
    assert "left: 1 leased, 1 accepted" in logs
    assert KEY not in logs


def test_sbatch_gives_each_worker_a_gpu_and_refuses_what_the_site_has_not(
    tmp_path: Path, environment: dict[str, str], service: Service
) -> None:
    options = ("--gpu", "h100", "--workers", "2", "--time", "10", "--partition", "gpu", "--idle-exit", "0")
    job = submitted(tmp_path, environment, service.url, *options)
    within(lambda: not site.answer(["squeue", "--noheader", "--job", job], environment), "the end of the job")
    logs = "".join(file.read_text() for file in tmp_path.glob(f"{job}_*.log"))
    given = re.findall(r"GRES=gpu:h100:1\(IDX:(\d)\)", logs)
    assert set(given) <= {"0", "1"}
    assert given
    assert "TimeLimit=00:10:00" in logs
    assert logs.count("there is no GPU here") == 2  # both workers began, and looked
    command = [
        sys.executable,
        "-m",
        "app",
        "fleet",
        "slurm",
        "--server",
        service.url,
        "--partition",
        "none",
        "--submit",
    ]
    run = subprocess.run(
        command, env={**environment, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False
    )
    assert run.returncode == 2
    assert "sbatch ended with exit code 1" in run.stderr
    assert "partition" in run.stderr
