"""The launchers' files of ``examples/launchers``: training starts only after a config that fits, and every key in them
is one that the launcher knows. Most run the real ``ctxplan``, about a second, for its verdict is what is to be obeyed.

The keys that are relied on are written down here, with where they are from: no launcher is installed for the tests.
"""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from estimator.device import find_device
from tests.launching import CONFIGS, EXIT_CODES, ROOT, Place, prepare

LAUNCHERS = ROOT / "examples" / "launchers"
MANUAL = (ROOT / "docs" / "launchers.md").read_text(encoding="utf-8")
SLURM, SUBMIT = LAUNCHERS / "slurm.sbatch", LAUNCHERS / "slurm-submit.sh"
KUBERNETES, SKYPILOT = LAUNCHERS / "kubernetes.yaml", LAUNCHERS / "skypilot.yaml"
DSTACK, MODAL = LAUNCHERS / "train.dstack.yml", LAUNCHERS / "modal_train.py"

SBATCH_OPTIONS = {
    "array", "constraint", "cpus-per-task", "error", "export", "gpus-per-node", "gres", "job-name", "mem", "nodes",
    "ntasks", "ntasks-per-node", "output", "partition", "time",
}  # fmt: skip
"""Of sbatch(1), Slurm 20.11 to 25.05."""
SKYPILOT_TASK = {"name", "workdir", "num_nodes", "resources", "file_mounts", "setup", "run", "envs", "secrets"}
SKYPILOT_RESOURCES = {"infra", "accelerators", "cpus", "memory", "use_spot", "disk_size", "image_id", "autostop"}
"""Of SkyPilot's sky/utils/schemas.py, ``get_task_schema`` and ``_get_single_resources_schema``."""
DSTACK_TASK = {
    "type",
    "name",
    "image",
    "python",
    "env",
    "commands",
    "resources",
    "files",
    "repos",
    "max_duration",
    "retry",
}
DSTACK_RESOURCES = {"cpu", "memory", "shm_size", "gpu", "disk"}
"""Of dstack's core/models/configurations.py, ``TaskConfiguration``, and resources.py, ``ResourcesSpec``."""

TRAINING = "python train.py --config train.yaml"
HELD = [("fits", True), ("uncertain", True), ("does_not_fit", False), ("unreadable", False)]
"""Where the card is held already: an uncertain config may try."""
STRICT = [("fits", True), ("uncertain", False), ("does_not_fit", False), ("unreadable", False)]
"""Where nothing is held yet, or a retry would only repeat the question."""


def read(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def assert_obeyed(done: subprocess.CompletedProcess[str], place: Place, verdict: str, starts: bool, last: str) -> None:
    """The last call is the training where it may start; else there is none, and the exit code says why."""
    assert done.returncode == (0 if starts else EXIT_CODES[verdict]), done.stderr
    assert (place.called()[-1:] == [last]) == starts
    assert (last in place.called()) == starts


class TestSlurm:
    @pytest.mark.parametrize(("verdict", "starts"), HELD)
    def test_the_batch_script_starts_a_step_only_for_what_may_fit(
        self, tmp_path: Path, verdict: str, starts: bool
    ) -> None:
        place = prepare(tmp_path, verdict, ["srun"])
        done = place.run(["bash", str(SLURM)], SLURM_MEM_PER_NODE="262144")
        assert_obeyed(done, place, verdict, starts, f"srun {TRAINING}")

    def test_the_memory_that_slurm_gives_limits_the_host(self, tmp_path: Path) -> None:
        place = prepare(tmp_path, "fits", ["srun"])
        done = place.run(["bash", str(SLURM)], SLURM_MEM_PER_NODE="65536")
        assert done.returncode == 1
        assert "in the host's RAM" in done.stderr
        assert place.called() == []

    def test_a_config_and_a_card_may_be_named(self, tmp_path: Path) -> None:
        place = prepare(tmp_path, "unreadable", ["srun"])
        (place.directory / "my run.yaml").write_text(CONFIGS["fits"])
        environment = {"SLURM_MEM_PER_NODE": "262144"}
        assert place.run(["bash", str(SLURM), "my run.yaml"], **environment).returncode == 0
        assert place.called() == ["srun python train.py --config my run.yaml"]
        small = place.run(["bash", str(SLURM), "my run.yaml"], CTXPLAN_GPU="RTX-4090-24GB", **environment)
        assert small.returncode == 1

    @pytest.mark.parametrize(("verdict", "starts"), STRICT)
    def test_nothing_is_submitted_that_may_not_fit(self, tmp_path: Path, verdict: str, starts: bool) -> None:
        place = prepare(tmp_path, verdict, ["sbatch"])
        done = place.run(["bash", str(SUBMIT)])
        submitted = "sbatch --export=ALL,CTXPLAN_GPU=H100-80GB slurm.sbatch train.yaml"
        assert_obeyed(done, place, verdict, starts, submitted)

    def test_its_directives_are_options_of_sbatch_and_come_before_any_command(self) -> None:
        lines = SLURM.read_text().splitlines()
        directives = [line for line in lines if line.startswith("#SBATCH")]
        options = dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", "\n".join(directives), re.MULTILINE))
        assert len(options) == len(directives)
        assert options.keys() <= SBATCH_OPTIONS
        first_command = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
        assert first_command > max(lines.index(line) for line in directives)
        # --mem is what the login node asks about: 256G of Slurm are 256 GiB.
        assert f"--host-ram {options['mem']}iB" in SUBMIT.read_text()

    @pytest.mark.parametrize("file", [SLURM, SUBMIT], ids=lambda file: file.name)
    def test_its_files_are_bash(self, file: Path) -> None:
        assert subprocess.run(["bash", "-n", file], check=False).returncode == 0
        assert file.read_text().startswith("#!/bin/bash\n")


class TestKubernetes:
    """The semantics are those of the Job documentation of Kubernetes: concepts/workloads/controllers/job."""

    @pytest.mark.parametrize(("verdict", "starts"), STRICT)
    def test_the_pods_training_starts_only_after_a_config_that_fits(
        self, tmp_path: Path, verdict: str, starts: bool
    ) -> None:
        place = prepare(tmp_path, verdict, ["python"])
        pod = read(KUBERNETES)["spec"]["template"]["spec"]
        commands = [container["command"] for container in (*pod["initContainers"], *pod["containers"])]
        done = place.run(["true"])
        for command in commands:
            if done.returncode == 0:
                done = place.run([word.replace("/config/", "") for word in command])
        assert_obeyed(done, place, verdict, starts, TRAINING)

    @pytest.mark.parametrize(
        ("code", "action"), [(1, "FailJob"), (2, "FailJob"), (3, "FailJob"), (70, "Count"), (137, "Count")]
    )
    def test_a_verdict_fails_the_job_at_once_and_an_accident_is_tried_again(self, code: int, action: str) -> None:
        assert action_of(read(KUBERNETES)["spec"], "preflight", code) == action

    def test_training_that_fails_is_tried_again(self) -> None:
        assert action_of(read(KUBERNETES)["spec"], "train", 1) == "Count"

    def test_its_failure_policy_is_one_that_the_api_takes(self) -> None:
        document = read(KUBERNETES)
        assert (document["apiVersion"], document["kind"]) == ("batch/v1", "Job")
        pod = document["spec"]["template"]["spec"]
        assert pod["restartPolicy"] == "Never"
        names = [container["name"] for container in (*pod["initContainers"], *pod["containers"])]
        for rule in document["spec"]["podFailurePolicy"]["rules"]:
            assert rule["action"] in {"FailJob", "FailIndex", "Ignore", "Count"}
            assert ("onExitCodes" in rule) != ("onPodConditions" in rule)
            if "onExitCodes" in rule:
                codes = rule["onExitCodes"]
                assert codes["containerName"] in names
                assert codes["operator"] in {"In", "NotIn"}
                assert codes["values"] == sorted(set(codes["values"]) - {0})

    def test_its_volumes_are_there_and_the_card_is_asked_for_by_the_container_that_trains_alone(self) -> None:
        pod = read(KUBERNETES)["spec"]["template"]["spec"]
        containers = {container["name"]: container for container in (*pod["initContainers"], *pod["containers"])}
        volumes = {volume["name"] for volume in pod["volumes"]}
        assert {mount["name"] for container in containers.values() for mount in container["volumeMounts"]} == volumes
        with_card = [name for name, one in containers.items() if "nvidia.com/gpu" in one["resources"]["limits"]]
        assert with_card == ["train"]

    def test_it_asks_about_the_host_ram_and_the_card_that_it_gets(self) -> None:
        pod = read(KUBERNETES)["spec"]["template"]["spec"]
        asked = pod["initContainers"][0]["command"]
        assert asked[asked.index("--host-ram") + 1] == pod["containers"][0]["resources"]["limits"]["memory"] + "B"
        named = asked[asked.index("--gpu") + 1]
        assert find_device(pod["nodeSelector"]["nvidia.com/gpu.product"]) == find_device(named)


class TestSkyPilot:
    @pytest.mark.parametrize(("verdict", "starts"), HELD)
    def test_what_does_not_fit_ends_before_the_long_install(self, tmp_path: Path, verdict: str, starts: bool) -> None:
        place, task = prepare(tmp_path, verdict, ["pip", "python"]), read(SKYPILOT)
        done = place.run(["bash", "-c", task["setup"]], **task["envs"])
        assert ("pip install unsloth" in place.called()) == starts
        if done.returncode == 0:
            done = place.run(["bash", "-c", task["run"]], **task["envs"])
        assert_obeyed(done, place, verdict, starts, TRAINING)

    @pytest.mark.parametrize(("verdict", "starts"), HELD)
    def test_a_run_without_setup_is_checked_as_well(self, tmp_path: Path, verdict: str, starts: bool) -> None:
        place, task = prepare(tmp_path, verdict, ["python"]), read(SKYPILOT)
        done = place.run(["bash", "-c", task["run"]], **task["envs"])
        assert_obeyed(done, place, verdict, starts, TRAINING)

    def test_its_keys_are_those_of_a_task(self) -> None:
        task = read(SKYPILOT)
        assert task.keys() <= SKYPILOT_TASK
        assert task["resources"].keys() <= SKYPILOT_RESOURCES
        assert all(isinstance(value, str) for value in task["envs"].values())

    def test_it_asks_about_the_card_and_the_host_ram_that_it_gets(self) -> None:
        task = read(SKYPILOT)
        card, _ = task["resources"]["accelerators"].split(":")
        assert find_device(card) == find_device(task["envs"]["CTXPLAN_GPU"])
        memory = task["resources"]["memory"].removesuffix("+")
        for shell in (task["setup"], task["run"]):
            assert f"--host-ram {memory}GiB" in shell


class TestDstack:
    @pytest.mark.parametrize(("verdict", "starts"), HELD)
    def test_the_command_that_fails_ends_the_run(self, tmp_path: Path, verdict: str, starts: bool) -> None:
        place, task = prepare(tmp_path, verdict, ["pip", "python"]), read(DSTACK)
        environment = dict(pair.split("=", 1) for pair in task["env"])
        # As dstack does: server/services/jobs/configurators/base.py, _join_shell_commands, in /bin/bash.
        done = place.run(["/bin/bash", "-c", " && ".join(task["commands"])], **environment)
        assert ("pip install unsloth" in place.called()) == starts
        assert_obeyed(done, place, verdict, starts, TRAINING)

    def test_its_keys_are_those_of_a_task(self) -> None:
        task = read(DSTACK)
        assert task["type"] == "task"
        assert task.keys() <= DSTACK_TASK
        assert task["resources"].keys() <= DSTACK_RESOURCES
        assert not {"image", "python"} <= task.keys()
        assert DSTACK.name.endswith(".dstack.yml")

    def test_it_asks_about_the_card_and_the_host_ram_that_it_gets(self) -> None:
        task = read(DSTACK)
        name, memory, _ = task["resources"]["gpu"].split(":")
        assert f"CTXPLAN_GPU={name}-{memory}" in task["env"]
        # A GB of dstack is 1024 MB: core/models/resources.py, Memory.
        assert f"--host-ram {task['resources']['memory'].removesuffix('GB..')}GiB" in " ".join(task["commands"])


class TestModal:
    @pytest.mark.parametrize(("verdict", "starts"), STRICT)
    def test_no_container_is_started_for_what_may_not_fit(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verdict: str, starts: bool
    ) -> None:
        place = prepare(tmp_path, verdict, [])
        remote: list[str] = []
        module = load_modal(monkeypatch, remote)
        monkeypatch.chdir(place.directory)
        monkeypatch.setenv("PATH", place.path)
        if starts:
            module.main()
        else:
            with pytest.raises(SystemExit) as left:
                module.main()
            assert left.value.code == EXIT_CODES[verdict]
        assert remote == [CONFIGS[verdict]] * starts

    def test_it_asks_about_the_card_that_it_gets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        module = load_modal(monkeypatch, [])
        assert find_device(module.GPU) == find_device(module.CTXPLAN_GPU)
        assert module.app.functions == [{"gpu": "H100", "memory": 262144, "timeout": 86400}]


def test_the_manual_shows_each_file_and_no_other() -> None:
    there = {str(file.relative_to(ROOT)) for file in LAUNCHERS.iterdir() if file.is_file()}
    assert set(re.findall(r"\]\(\.\./(examples/launchers/[\w./-]+)\)", MANUAL)) == there


def action_of(spec: Any, container: str, code: int) -> str:
    """What a Job does about a container's exit code: the first rule that matches; without one, the attempt counts."""
    for rule in spec["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes")
        if codes and codes["containerName"] == container and (code in codes["values"]) == (codes["operator"] == "In"):
            return str(rule["action"])
    return "Count"


def load_modal(monkeypatch: pytest.MonkeyPatch, remote: list[str]) -> Any:
    """The script, with a Modal that keeps what it is asked for and calls no one."""

    class App:
        def __init__(self, name: str) -> None:
            self.name, self.functions = name, list[dict[str, Any]]()

        def function(self, *, image: Any, **resources: Any) -> Any:
            self.functions.append(resources)
            return lambda function: SimpleNamespace(remote=remote.append, local=function)

        def local_entrypoint(self) -> Any:
            return lambda function: function

    class Image:
        @staticmethod
        def debian_slim(*, python_version: str) -> Image:
            return Image()

        def uv_pip_install(self, *packages: str) -> Image:
            return self

        def add_local_file(self, local_path: str, remote_path: str) -> Image:
            return self

    modal: Any = ModuleType("modal")
    modal.App, modal.Image = App, Image
    monkeypatch.setitem(sys.modules, "modal", modal)
    spec = importlib.util.spec_from_file_location("modal_train", MODAL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
