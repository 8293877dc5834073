"""The scripts run: real Unsloth on its CPU backend trains a tiny checkpoint with them."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.scripts import write_script
from ctxplan import Planner
from estimator import parse_job

pytestmark = [
    pytest.mark.unsloth,
    pytest.mark.skipif(importlib.util.find_spec("unsloth") is None, reason="Unsloth is not installed"),
]

OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "UNSLOTH_DISABLE_STATISTICS": "1",
    "CUDA_VISIBLE_DEVICES": "",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    _python(folder, str(Path(__file__).with_name("tiny_checkpoint.py")), str(folder))
    return folder


def run_script(folder: Path, checkpoint: Path, job: dict[str, Any], *flags: str) -> dict[str, Any]:
    """Write the job's script, run it in ``folder``, and give what it reports last."""
    parsed = parse_job({"model": str(checkpoint), "max_seq_length": 64, "r": 4, "optim": "adamw_torch", **job})
    planner = Planner(offline=True)
    facts = planner.facts(parsed.model)
    file = folder / "script.py"
    file.write_text(write_script(parsed, planner.estimate(parsed, facts), facts.architecture).text, encoding="utf-8")
    out = _python(folder, str(file), *flags)
    report: dict[str, Any] = json.loads(out.splitlines()[-1])
    return report


def _python(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **OFFLINE},
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


def test_a_lora_script_trains_with_unsloth(tmp_path: Path, checkpoint: Path) -> None:
    report = run_script(
        tmp_path, checkpoint, {"load_in_16bit": True, "per_device_train_batch_size": 2}, "--max-steps", "2"
    )
    assert report["steps"] == 2
    assert math.isfinite(report["loss"])
    assert (tmp_path / "outputs" / "adapter_model.safetensors").is_file()


def test_a_script_trains_on_a_file_of_texts(tmp_path: Path, checkpoint: Path) -> None:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps({"text": f"The answer to {n} is {n + 1}."}) + "\n" for n in range(8)))
    report = run_script(tmp_path, checkpoint, {"full_finetuning": True}, "--data", str(data), "--max-steps", "2")
    assert report["steps"] == 2
    assert math.isfinite(report["loss"])


@pytest.mark.parametrize(
    "job", [{"load_in_16bit": True}, pytest.param({"full_finetuning": True}, marks=pytest.mark.slow)]
)
def test_a_plain_transformers_script_trains(tmp_path: Path, checkpoint: Path, job: dict[str, Any]) -> None:
    report = run_script(tmp_path, checkpoint, {"framework": "transformers", **job}, "--max-steps", "2")
    assert report["steps"] == 2
    assert math.isfinite(report["loss"])


def test_a_generation_script_generates(tmp_path: Path, checkpoint: Path) -> None:
    job = {"load_in_16bit": True, "mode": "generate", "max_new_tokens": 3}
    assert run_script(tmp_path, checkpoint, job)["new_tokens"] == 3
