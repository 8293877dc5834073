"""The callback and the explanation in a real training run, on Unsloth's CPU backend.

Each run starts a process that imports torch, transformers and Unsloth, which takes about ten seconds: nothing less
shows that a Trainer calls what we have written.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.database import Database, migrate
from app.observations.judging import judge
from app.observations.reading import read_observations
from ctxplan import Client, Planner
from ctxplan.calibrations import shipped
from tests.app.test_keys_over_http import SECRET, key
from tests.ctxplan.serving import serving

ROOT = Path(__file__).resolve().parents[2]
PLANNER = Planner(offline=True, calibration=shipped())

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
name, embedding = next((n, p) for n, p in model.named_parameters() if "embed_tokens" in n)
embedding.requires_grad_(True)
callback = PlanCallback(gpu={"name": "H100-80GB", "total_bytes": 2**30}, optim="adamw_8bit", stop=True,
                        per_device_train_batch_size=8192)
running = trainer(callback)
running.train()
print(json.dumps({"steps": running.state.global_step, "said": callback.said}))
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


def run(script: str, folder: Path, **variables: str) -> tuple[dict[str, object], str]:
    """What the script printed last, as JSON, and its standard error."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("CTXPLAN_")},
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": str(ROOT),
        "XDG_STATE_HOME": str(folder / "state"),
        **variables,
    }
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


@pytest.fixture
def service(tmp_path: Path) -> Iterator[tuple[str, str]]:
    """The address of a real service that asks for keys, and a key that may send it observations."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'ctxplan.db'}"

    async def prepare() -> None:
        database = Database(url)
        await migrate(database)
        await database.dispose()

    asyncio.run(prepare())
    made = key(url, "measure")
    with serving(tmp_path, database_url=url, require_keys=True, keys_secret=SecretStr(SECRET)) as address:
        yield address, made.key


def test_the_first_steps_of_a_run_are_compared_and_what_they_showed_is_sent(
    tmp_path: Path, service: tuple[str, str]
) -> None:
    address, secret = service
    out, told = run(WATCHED, tmp_path, CTXPLAN_SERVER=address, CTXPLAN_API_KEY=secret)
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
    assert seen[0]["peaks"]["allocated_bytes"] == 2**34
    assert seen[0]["calibration"] == shipped().id
    with Client(address, api_key=secret) as client:
        kept = list(client.each_observation(state="beyond"))
    assert [one["document"] for one in kept] == seen[::-1]
    # A live model brings its own config, so that the service judges it by its own calibration.
    assert [one["expected_bytes"] for one in kept] == [row["expected"]["expected"] for row in seen[::-1]]
    assert all(f"the run took {16:.2f} GiB" in (one["drift"] or "") for one in kept)
    assert not (tmp_path / "state").exists()
    assert secret not in told


def test_a_run_that_will_not_fit_is_ended_where_that_is_asked_for(tmp_path: Path) -> None:
    out, _ = run(STOPPED, tmp_path)
    assert isinstance(out["steps"], int)
    assert out["steps"] <= 1
    assert "will not fit" in str(out["said"])
    # The live model trains its embedding as well, of which the trainer's arguments say nothing.
    assert str(out["said"]).count("the model trains") == 1


def test_an_out_of_memory_is_raised_as_it_was_with_the_plan_as_a_note(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: a service that is away
        out, told = run(EXPLAINED, tmp_path, CTXPLAN_SERVER=f"http://127.0.0.1:{taken.getsockname()[1]}")
    assert out["same"] == "CUDA out of memory. Tried to allocate 3.00 GiB."
    notes = out["notes"]
    assert isinstance(notes, list)
    assert len(notes) == 1
    assert "seen: tried to allocate 3.00 GiB" in notes[0]
    assert notes[0] in told
    (ended,) = [json.loads(line) for line in (tmp_path / "ended.jsonl").read_text().splitlines()]
    assert (ended["outcome"], ended["allocator"]["tried_bytes"]) == ("out_of_memory", 3 * 2**30)
    (unsent,) = (tmp_path / "state" / "ctxplan").iterdir()
    assert json.loads(unsent.read_text()) == ended
    assert "could not be sent" in told
    (read,) = read_observations({"observations": [ended]})
    assert judge(read, PLANNER, known=PLANNER).state == "unjudged"
