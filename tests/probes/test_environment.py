"""The measured process's surroundings: its variables, its folder, its caches, its checkpoint and its output."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from probes.environment import POINT_VARIABLES, child_environment, noted
from probes.errors import PointError, ProbeUnavailable
from probes.points import parse_point
from probes.supervise import Options, measure
from tests.probes.children import WELL
from tests.probes.common import JOB, point
from tests.probes.running import run

TELL = 'tell("environment", json.dumps(dict(os.environ)))\n' + WELL
STRAY = {
    "UNSLOTH_COMPILE_DISABLE": "1",
    "UNSLOTH_BLOCK_COMPILE": "0",
    "UNSLOTH_DISABLE_PINNED_MEMORY": "1",
    "UNSLOTH_TILED_MLP": "arctic",
    "UNSLOTH_IS_PRESENT": "1",
    "PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync",
    "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
    "TORCH_COMPILE_DISABLE": "1",
    "TORCHDYNAMO_DISABLE": "1",
    "TORCHINDUCTOR_MAX_AUTOTUNE": "1",
    "TRITON_INTERPRET": "1",
    "ACCELERATE_MIXED_PRECISION": "fp16",
    "BNB_CUDA_VERSION": "118",
    "BITSANDBYTES_NOWELCOME": "1",
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "CUDA_LAUNCH_BLOCKING": "1",
    "CUDA_MODULE_LOADING": "EAGER",
    "NCCL_DEBUG": "INFO",
    "WORLD_SIZE": "8",
    "RANK": "3",
    "LOCAL_RANK": "3",
    "MASTER_ADDR": "node1",
    "OMPI_COMM_WORLD_SIZE": "8",
    "PYTHONSTARTUP": "/nowhere.py",
}
"""What a person may have set for something else."""


def told(tmp_path: Path, **options: Any) -> dict[str, str]:
    """The environment that a process really had."""
    run(tmp_path, TELL, **options)
    seen: dict[str, str] = json.loads((tmp_path / "environment").read_text())
    return seen


class TestVariables:
    @pytest.mark.parametrize(
        ("job", "name", "text"),
        [
            ({"block_compile": False}, "UNSLOTH_BLOCK_COMPILE", "0"),
            ({"block_compile": False, "padding_free": True}, "UNSLOTH_BLOCK_COMPILE", None),
            ({"block_compile": False, "mode": "generate", "max_new_tokens": 4}, "UNSLOTH_BLOCK_COMPILE", None),
            ({"block_compile": None}, "UNSLOTH_BLOCK_COMPILE", None),
            ({"pin_host_memory": False}, "UNSLOTH_DISABLE_PINNED_MEMORY", "1"),
            ({"pin_host_memory": True}, "UNSLOTH_DISABLE_PINNED_MEMORY", None),
            ({"unsloth_tiled_mlp": True}, "UNSLOTH_TILED_MLP", "arctic"),
            ({"unsloth_tiled_mlp": False}, "UNSLOTH_TILED_MLP", None),
            ({"unsloth_tiled_mlp": True, "framework": "transformers"}, "UNSLOTH_TILED_MLP", None),
            ({}, "PYTORCH_ALLOC_CONF", "expandable_segments:True"),
            ({}, "HF_HUB_OFFLINE", "1"),
        ],
    )
    def test_what_the_job_implies_is_set_and_what_it_does_not_is_not_whatever_the_surroundings_hold(
        self, job: dict[str, Any], name: str, text: str | None
    ) -> None:
        asked = parse_point({**JOB, **job})
        for around in ({}, STRAY):
            assert child_environment(asked, Path("/work"), uuid=None, around=around).get(name) == text

    def test_nothing_that_could_change_a_measurement_comes_from_the_surroundings(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, text in STRAY.items():
            monkeypatch.setenv(name, text)
        monkeypatch.setenv("LD_LIBRARY_PATH", "/opt/cuda/lib")
        monkeypatch.setenv("TRITON_PTXAS_PATH", "/opt/cuda/bin/ptxas")
        seen = told(tmp_path)
        assert not STRAY.keys() & seen.keys()
        assert seen["LD_LIBRARY_PATH"] == "/opt/cuda/lib"
        assert seen["TRITON_PTXAS_PATH"] == "/opt/cuda/bin/ptxas"
        assert seen["PATH"] == os.environ["PATH"]

    def test_the_point_has_the_last_word(self) -> None:
        asked = point(environment={"PYTORCH_ALLOC_CONF": "expandable_segments:False"})
        given = child_environment(asked, Path("/work"), uuid=None)
        assert given["PYTORCH_ALLOC_CONF"] == "expandable_segments:False"

    def test_a_setting_of_the_allocator_by_its_older_name_is_not_overruled_by_the_jobs(self) -> None:
        asked = point(environment={"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64"})
        given = child_environment(asked, Path("/work"), uuid=None)
        assert given["PYTORCH_CUDA_ALLOC_CONF"] == "max_split_size_mb:64"
        assert "PYTORCH_ALLOC_CONF" not in given

    def test_the_process_sees_the_one_card_by_its_uuid_or_none(self) -> None:
        around = {"CUDA_VISIBLE_DEVICES": "0,1,2,3", "CUDA_DEVICE_ORDER": "FASTEST_FIRST"}
        one = child_environment(point(), Path("/work"), uuid="GPU-8f", around=around)
        assert (one["CUDA_VISIBLE_DEVICES"], one["CUDA_DEVICE_ORDER"]) == ("GPU-8f", "PCI_BUS_ID")
        assert child_environment(point(), Path("/work"), uuid=None, around=around)["CUDA_VISIBLE_DEVICES"] == ""

    def test_a_measurement_notes_what_was_set_and_no_path_no_card_and_no_secret(self) -> None:
        asked = point(environment={"UNSLOTH_ENABLE_FLEX_ATTENTION": "0"})
        around = {**STRAY, "HOME_GROWN": "1", "TRITON_PTXAS_PATH": "/opt/ptxas"}
        given = child_environment(asked, Path("/work"), uuid="GPU-8f", around=around)
        assert noted(given) == {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "PYTORCH_ALLOC_CONF": "expandable_segments:True",
            "UNSLOTH_DISABLE_STATISTICS": "1",
            "UNSLOTH_ENABLE_FLEX_ATTENTION": "0",
        }
        assert noted({"UNSLOTH_SOME_TOKEN": "hush", "UNSLOTH_SOME_FOLDER": "~/mine"}) == {}

    def test_what_was_asked_and_what_was_set_are_told_apart(self, tmp_path: Path) -> None:
        (measured,) = run(tmp_path, WELL, point(environment={"UNSLOTH_FULLGRAPH": "1"}))
        assert measured.environment_asked == {"UNSLOTH_FULLGRAPH": "1"}
        assert measured.environment.keys() > {"UNSLOTH_FULLGRAPH", "PYTORCH_ALLOC_CONF"}


class TestWhatAPointMaySet:
    @pytest.mark.parametrize(
        "name",
        [
            "LD_PRELOAD",
            "PATH",
            "PYTHONPATH",
            "TRITON_PTXAS_PATH",
            "TRITON_CACHE_DIR",
            "TORCHINDUCTOR_CACHE_DIR",
            "TORCHINDUCTOR_REDIS_HOST",
            "TORCH_LOGS",
            "UNSLOTH_COMPILE_LOCATION",
            "UNSLOTH_FORCE_CUSTOM_DTYPE",  # Python code, which Unsloth runs
            "UNSLOTH_PYTORCH_MIRROR",
            "UNSLOTH_USE_MODELSCOPE",
            "HF_HUB_OFFLINE",
            "CUDA_VISIBLE_DEVICES",
        ],
    )
    def test_a_variable_that_names_a_file_a_command_or_a_host_is_refused_by_name(self, name: str) -> None:
        with pytest.raises(PointError, match="changes memory") as refused:
            parse_point({"job": JOB, "environment": {name: "1"}})
        assert refused.value.key == f"environment.{name}"

    @pytest.mark.parametrize("text", ["/tmp/x", "~/x", "..\\x", "$(reboot)", "a b", "1\n", "`x`", "x" * 201])
    def test_a_value_that_could_be_a_path_or_a_command_is_refused(self, text: str) -> None:
        with pytest.raises(PointError, match="no path and no command") as refused:
            parse_point({"job": JOB, "environment": {"UNSLOTH_TILED_MLP": text}})
        assert refused.value.key == "environment.UNSLOTH_TILED_MLP"

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("UNSLOTH_ENABLE_FLEX_ATTENTION", "0"),
            ("UNSLOTH_DISABLE_DOUBLE_BUFFER", "1"),
            ("UNSLOTH_CE_LOSS_TARGET_GB", "0.5"),
            ("PYTORCH_ALLOC_CONF", "expandable_segments:True,roundup_power2_divisions:[256:1,512:2,>:8]"),
            ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
        ],
    )
    def test_switches_and_sizes_are_taken(self, name: str, text: str) -> None:
        assert parse_point({"job": JOB, "environment": {name: text}}).environment == {name: text}

    def test_no_name_on_the_list_is_a_place(self) -> None:
        places = ("PATH", "DIR", "LOCATION", "HOST", "URL", "MIRROR", "FOLDER", "FILE", "HOME")
        assert not [name for name in POINT_VARIABLES if name.endswith(places)]


class TestFolders:
    def test_the_process_runs_in_its_work_folder_with_its_caches_there(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/tmp/torchinductor_somebody")
        monkeypatch.setenv("TRITON_CACHE_DIR", "/tmp/triton_somebody")
        names = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR", "UNSLOTH_COMPILE_LOCATION")
        seen = f'[os.getcwd(), request["workdir"], *(os.environ[name] for name in {names})]'
        run(tmp_path, f'tell("seen", json.dumps({seen}))\n' + WELL)
        here, workdir, *caches = json.loads((tmp_path / "seen").read_text())
        assert here == workdir
        assert {Path(cache).parent for cache in caches} == {Path(workdir)}

    def test_compiled_kernels_are_kept_where_that_is_asked_for_and_compiled_source_is_not(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        seen = told(tmp_path, cache_folder=Path("kernels"))
        assert seen["TRITON_CACHE_DIR"] == str(tmp_path / "kernels" / "triton")
        assert seen["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "kernels" / "inductor")
        assert not Path(seen["UNSLOTH_COMPILE_LOCATION"]).is_relative_to(tmp_path / "kernels")
        assert (tmp_path / "kernels").is_dir()

    def test_output_is_kept_on_request(self, tmp_path: Path) -> None:
        run(tmp_path, "print('spoken')\n" + WELL, keep_output=tmp_path / "kept")
        (file,) = (tmp_path / "kept").iterdir()
        assert file.read_text() == "spoken\n"

    @pytest.mark.parametrize("option", ["keep_output", "cache_folder"])
    def test_a_folder_that_cannot_be_made_is_found_before_the_run(self, tmp_path: Path, option: str) -> None:
        (tmp_path / "file").write_text("")
        given: dict[str, Any] = {option: tmp_path / "file" / "deeper"}
        with pytest.raises(ProbeUnavailable, match="file"):
            measure([point()], Options(**given))
