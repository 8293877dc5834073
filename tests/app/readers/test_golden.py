"""Real configs of every tool, each against the job that it asks for: facts of public examples, written anew."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from app.preflight import Question, TokenReport, check
from app.readers import TOOLS, read
from app.readers.detect import detect
from app.readers.document import read_document
from ctxplan import Planner
from estimator.errors import UnknownModel
from estimator.job import RULES

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
CONFIGS = sorted((HERE / "configs").iterdir())
EXAMPLES = sorted((ROOT / "examples" / "configs").iterdir())
DATA = TokenReport(documents=1000, tokens=1_000_000, p50=500, p99=1500, longest=2000)
STAND_IN = "meta-llama/Llama-3.1-8B-Instruct"
"""In place of models that nobody knows without the Hub."""


def read_file(file: Path):
    return read(read_document(file.read_bytes(), file.name))


def ids(files: list[Path]) -> list[str]:
    return [file.stem for file in files]


@pytest.mark.parametrize("file", CONFIGS, ids=ids(CONFIGS))
def test_a_real_config_is_read_without_a_wrong_field(file: Path) -> None:
    reading = read_file(file)
    found = {
        "tool": reading.tool,
        "job": dict(reading.job),
        "doubts": {doubt.key: doubt.effect for doubt in reading.doubts},
        "packs": reading.packs,
        "full_logits": reading.full_logits,
        "length_from_data": reading.length_from_data,
    }
    assert found == json.loads((HERE / "golden" / f"{file.stem}.json").read_text())


def test_there_are_real_configs_of_every_tool() -> None:
    assert len(CONFIGS) >= 25
    assert {read_file(file).tool for file in CONFIGS} == set(TOOLS)
    assert ids(CONFIGS) == ids(sorted((HERE / "golden").iterdir()))


@pytest.mark.parametrize("file", CONFIGS, ids=ids(CONFIGS))
def test_every_key_of_the_job_that_the_config_sets_has_its_line(file: Path) -> None:
    lines = file.read_text().splitlines()
    for job_key, source in read_file(file).sources.items():
        assert job_key in RULES
        assert source.place.line is not None
        assert source.key.rpartition(".")[2] in lines[source.place.line - 1]


@pytest.mark.parametrize("file", CONFIGS, ids=ids(CONFIGS))
def test_a_real_config_is_planned(file: Path) -> None:
    reading = read_file(file)
    planner = Planner(offline=True)
    question = Question(reading=reading, gpu="H200-141GB", tokens=DATA)
    try:
        planner.facts(reading.job.get("model", STAND_IN))
        model = None if "model" in reading.job else STAND_IN
    except UnknownModel:
        model = STAND_IN
    answer = check(Question(reading=reading, gpu=question.gpu, tokens=DATA, model=model), planner)
    assert answer.verdict in ("fits", "does_not_fit", "uncertain")
    assert answer.phases


@pytest.mark.parametrize("file", EXAMPLES, ids=ids(EXAMPLES))
def test_every_example_is_of_the_tool_that_it_is_named_for_and_is_planned(file: Path) -> None:
    reading = read_file(file)
    assert file.stem == reading.tool
    assert detect(read_document(file.read_bytes(), file.name)) == reading.tool
    assert check(Question(reading=reading, gpu="H100-80GB"), Planner(offline=True)).estimate.job.max_seq_length > 0


def test_there_is_an_example_of_every_tool() -> None:
    assert {file.stem for file in EXAMPLES} == set(TOOLS) - {"job"}


def test_defaults_that_were_filled_in_are_said_with_the_release_that_they_are_of() -> None:
    told = " ".join(read_file(HERE / "configs" / "trl-cli-example.yaml").assumptions)
    assert "trl 1.15.0" in told
    assert "max_length 1024" in told
    assert "per_device_train_batch_size 8" in told
    told = " ".join(read_file(HERE / "configs" / "axolotl-qwen3-32b-qlora-offload.yaml").assumptions)
    assert "axolotl 0.19.0" in told
    assert "lora_dropout 0.0" in told


def test_a_key_that_a_lax_tool_ignores_is_named() -> None:
    (unread,) = read_file(HERE / "configs" / "axolotl-command-r-7b-qlora.yaml").unread
    assert (unread.key, unread.place.line) == ("attention", 13)
