"""The callback and the explanation in a real training run, on Unsloth's CPU backend.

Each run starts a process that imports torch, transformers and Unsloth, which takes about ten seconds: nothing less
shows that a Trainer calls what we have written.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [
    pytest.mark.unsloth,
    pytest.mark.timeout(180),
    pytest.mark.skipif(importlib.util.find_spec("unsloth") is None, reason="Unsloth is not installed"),
]

SETUP = """
import json, sys
from pathlib import Path
import unsloth
from unsloth import FastLanguageModel
from datasets import Dataset
from trl import SFTConfig, SFTTrainer
from ctxplan.callback import PlanCallback, explain_out_of_memory
from ctxplan.watching import Seen
from probes.child.checkpoint import write_checkpoint
from tests.probes.tiny import TINY

folder = Path(sys.argv[1])
write_checkpoint({**TINY, "num_hidden_layers": 2}, folder / "model")
model, tokenizer = FastLanguageModel.from_pretrained(str(folder / "model"), max_seq_length=64, load_in_4bit=False)
model = FastLanguageModel.get_peft_model(model, r=4)
rows = [{"input_ids": [5] * 16}, {"input_ids": [6] * 48}, {"input_ids": [7] * 8}]

def trainer(*callbacks):
    arguments = SFTConfig(
        output_dir=str(folder / "out"), max_length=64, max_steps=4, per_device_train_batch_size=1,
        optim="adamw_torch", report_to="none", save_strategy="no", logging_strategy="no", dataset_num_proc=1,
    )
    return SFTTrainer(model=model, processing_class=tokenizer, train_dataset=Dataset.from_list(rows * 2),
                      args=arguments, callbacks=list(callbacks))
"""

WATCHED = """
card = {"name": "H100-80GB", "total_bytes": 2**31}
callback = PlanCallback(
    gpu=card, optim="adamw_8bit", peaks=lambda: Seen(2**34, 2**34), observations=folder / "seen.jsonl"
)
trainer(callback).train()
print(json.dumps({"said": callback.said, "longest": callback.plan.longest.job.sequence_length,
                  "layers": callback.plan.typical.job.num_hidden_layers, "r": callback.plan.typical.job.r,
                  "hooks": len(model._forward_pre_hooks)}))
"""

STOPPED = """
callback = PlanCallback(gpu={"name": "H100-80GB", "total_bytes": 2**30}, optim="adamw_8bit", stop=True,
                        per_device_train_batch_size=8192)
running = trainer(callback)
running.train()
print(json.dumps({"steps": running.state.global_step, "said": callback.said}))
"""

ANOTHER = """
name, embedding = next((n, p) for n, p in model.named_parameters() if "embed_tokens" in n)
embedding.requires_grad_(True)
callback = PlanCallback(gpu="H100-80GB", optim="adamw_8bit", peaks=lambda: None)
trainer(callback).train()
print(json.dumps({"said": callback.said}))
"""

EXPLAINED = """
import torch
running = trainer()
def ends(*arguments, **options):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")
running.training_step = ends
try:
    with explain_out_of_memory(running, gpu="H100-80GB", optim="adamw_8bit", observations=folder / "ended.jsonl"):
        running.train()
except torch.OutOfMemoryError as error:
    print(json.dumps({"notes": error.__notes__, "same": str(error)}))
"""


def run(script: str, folder: Path) -> tuple[dict[str, object], str]:
    """What the script printed last, as JSON, and its standard error."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", SETUP + script, str(folder)],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.strip().splitlines()[-1]), done.stderr


def test_the_first_steps_of_a_run_are_compared_and_the_longest_sample_is_known(tmp_path: Path) -> None:
    out, told = run(WATCHED, tmp_path)
    assert (out["longest"], out["layers"], out["r"]) == (48, 2, 4)
    said = out["said"]
    assert isinstance(said, list)
    assert any(sentence.startswith("step 1 took 16.00 GiB") for sentence in said)
    assert len(said) == len(set(said))
    assert all(f"ctxplan: {sentence}" in told for sentence in said)
    seen = [json.loads(line) for line in (tmp_path / "seen.jsonl").read_text().splitlines()]
    assert [row["step"] for row in seen] == [1, 2, 3]
    # Each step is compared with the longest batch so far, whatever order the samples came in.
    lengths = [row["job"]["sequence_length"] for row in seen]
    assert lengths == sorted(lengths)
    assert set(lengths) <= {8, 16, 48}
    assert not any("the model trains" in sentence for sentence in said)
    assert out["hooks"] == 0
    assert told.count(f"ctxplan: {said[0]}") == 1
    assert seen[0]["allocated_bytes"] == 2**34
    assert seen[0]["calibration"]["points"] > 0


def test_a_run_that_will_not_fit_is_ended_where_that_is_asked_for(tmp_path: Path) -> None:
    out, _ = run(STOPPED, tmp_path)
    assert isinstance(out["steps"], int)
    assert out["steps"] <= 1
    assert "will not fit" in str(out["said"])


def test_an_out_of_memory_is_raised_as_it_was_with_the_plan_as_a_note(tmp_path: Path) -> None:
    out, told = run(EXPLAINED, tmp_path)
    assert out["same"] == "CUDA out of memory. Tried to allocate 3.00 GiB."
    notes = out["notes"]
    assert isinstance(notes, list)
    assert len(notes) == 1
    assert "seen: tried to allocate 3.00 GiB" in notes[0]
    assert notes[0] in told
