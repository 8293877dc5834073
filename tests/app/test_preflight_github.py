"""Annotations that GitHub shows on a config's lines, whatever the config holds, and the step's summary."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.preflight import Question, check
from app.preflight.github import MOST, SUMMARY_BYTES, Annotation, append_summary, remarks, summary
from app.readers import Place, read
from app.readers.document import read_document
from ctxplan import Planner
from tests.app.test_cli import run

CONFIG = """model: unsloth/Llama-3.2-1B-Instruct
training:
  max_seq_length: 40000
  gradient_checkpointing: true
lora:
  use_dora: true
"""


def answer_of(text: str, file: str = "configs/train.yaml") -> Any:
    reading = read(read_document(text.encode(), file))
    return check(Question(reading=reading, gpu="H100-80GB"), Planner(offline=True))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    written = tmp_path / "train.yaml"
    written.write_text(CONFIG)
    return written


def test_each_remark_stands_on_the_line_that_it_is_about() -> None:
    told = {remark.title: remark.command() for remark in remarks(answer_of(CONFIG))}
    assert told["Uncertain whether it fits"].startswith("::warning file=configs/train.yaml,line=3,title=Uncertain")
    assert told["checkpointing"].startswith("::error file=configs/train.yaml,line=4,title=checkpointing::")
    assert told["not modelled"].startswith("::warning file=configs/train.yaml,line=6,title=not modelled::lora.use_dora")


@pytest.mark.parametrize(
    ("gpu", "kind"), [("H100-80GB", "notice"), ({"name": "small", "total_bytes": 2**31}, "error")], ids=["fits", "not"]
)
def test_the_verdict_is_a_notice_or_an_error(gpu: Any, kind: str) -> None:
    reading = read(read_document(b"model: unsloth/Llama-3.2-1B-Instruct\ntraining: {max_seq_length: 4096}\n", "t.yaml"))
    answer = check(Question(reading=reading, gpu=gpu), Planner(offline=True))
    assert remarks(answer)[0].kind == kind


def test_what_has_a_meaning_in_a_command_is_escaped() -> None:
    command = Annotation("error", "a: b, c", "50 %\r\nnext: x, y", Place("a,b:c%.yaml", 3)).command()
    assert command == "::error file=a%2Cb%3Ac%25.yaml,line=3,title=a%3A b%2C c::50 %25%0D%0Anext: x, y"


@given(st.text(), st.text(), st.text(min_size=1))
def test_no_text_ends_a_command_or_begins_another(message: str, title: str, name: str) -> None:
    command = Annotation("warning", title, message, Place(name, 1)).command()
    assert "\n" not in command
    assert "\r" not in command
    head = command.removeprefix("::warning ")[: command.removeprefix("::warning ").index("::")]
    assert len(head.split(",")) == 3 - (not title)


def test_no_more_of_a_kind_are_told_than_github_shows() -> None:
    keys = "lora_mlp_kernel lora_qkv_kernel lora_o_kernel lora_embedding_kernel tiled_mlp activation_offloading "
    keys += "layer_offloading ple_cpu_offload lora_on_cpu embeddings_skip_upcast use_kernels relora fp32_norms"
    text = "base_model: Qwen/Qwen3-8B\nadapter: lora\nlora_r: 8\nlora_target_linear: true\nsequence_len: 512\n"
    answer = answer_of(text + "".join(f"{key}: true\n" for key in keys.split()))
    told = [remark.kind for remark in remarks(answer)]
    assert max(told.count(kind) for kind in ("error", "warning", "notice")) == MOST
    assert all(f"`{key}`" in summary(answer) for key in keys.split())


def test_the_command_writes_annotations_alone_to_standard_output_and_the_summary_to_its_file(
    file: Path, tmp_path: Path
) -> None:
    step = tmp_path / "summary.md"
    step.write_text("before\n")
    done = run("preflight", str(file), "--gpu", "H100-80GB", "--format", "github", GITHUB_STEP_SUMMARY=str(step))
    assert done.returncode == 3
    assert done.stderr == ""
    assert all(line.startswith("::") for line in done.stdout.splitlines())
    assert step.read_text().startswith("before\n### Uncertain whether it fits")
    assert "| longest_sample | 40000 |" in step.read_text()


def test_a_config_that_cannot_be_read_is_annotated_and_still_ends_with_2(tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text("model: x\ntraining:\n  batchsize: 1\n")
    done = run("preflight", str(file), "--format", "github")
    assert done.returncode == 2
    assert done.stdout.startswith(f"::error file={file},line=3,title=")
    assert "training.batchsize" in done.stderr


def test_a_summary_that_cannot_be_written_changes_nothing_else(file: Path, tmp_path: Path) -> None:
    gone = str(tmp_path / "absent" / "summary.md")
    done = run("preflight", str(file), "--gpu", "H100-80GB", "--format", "github", GITHUB_STEP_SUMMARY=gone)
    assert done.returncode == 3
    assert "GITHUB_STEP_SUMMARY cannot be written" in done.stderr


def test_a_summary_never_grows_beyond_what_github_takes(tmp_path: Path) -> None:
    step = tmp_path / "summary.md"
    for _ in range(3):
        append_summary(step, "x" * (SUMMARY_BYTES // 2))
    assert step.stat().st_size <= SUMMARY_BYTES


def test_nothing_in_a_config_is_markup_in_the_summary() -> None:
    text = "base_model: Qwen/Qwen3-8B\nadapter: lora\nlora_r: 8\nlora_target_linear: true\nplugins: ['<b>|*x*`y`']\n"
    assert "<b>" not in summary(answer_of(text))
