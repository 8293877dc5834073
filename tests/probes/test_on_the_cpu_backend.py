"""Whole probes on Unsloth's CPU backend: the same orchestration as on a GPU, with a real forward, backward and step.

Each test starts a process that imports torch, transformers and Unsloth, which takes about ten seconds: nothing less
shows that real steps ran.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import pytest

from estimator import JobError, parse_job
from probes.measurement import Measurement
from probes.points import parse_points
from probes.supervise import Options, measure
from tests.probes.tiny import tiny_job

pytestmark = [
    pytest.mark.unsloth,
    pytest.mark.timeout(180),
    pytest.mark.skipif(importlib.util.find_spec("unsloth") is None, reason="Unsloth is not installed"),
]


@pytest.fixture(autouse=True)
def no_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about the CPU, also on a machine with a GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


def probe(job: dict[str, Any], **point: Any) -> list[Measurement]:
    return measure(parse_points({"job": job, **point}), Options(time_limit_seconds=150))


def test_lengths_of_one_process_are_measured_in_turn_and_nothing_of_a_gpu_is_written() -> None:
    measurements = probe(tiny_job(max_seq_length=128), sequence_lengths=[128, 64])
    assert [m.sequence_length for m in measurements] == [64, 128]
    assert [m.lengths_before for m in measurements] == [(), (64,)]
    for m in measurements:
        assert (m.outcome, m.execution_path, m.gpu) == ("ok", "cpu", None), m.detail
        assert m.num_hidden_layers == 2
        assert [step.loss is not None for step in m.steps] == [True] * 3
        # It trains from the first step on: the same batch again costs less.
        losses = [step.loss or 0.0 for step in m.steps]
        assert losses[0] > losses[1] > losses[2]
        assert set(m.seconds) == {"load", "peft", "steps"}
        assert m.ran.input_shape == (1, m.sequence_length)
        assert m.peak_allocated_bytes is None
        assert m.steps[0].forward is None
        assert m.host is not None
        assert (m.host.rss_bytes or 0) > 2**28
        assert m.stack["unsloth"]
        assert m.stack["torch"]


def test_what_was_asked_and_what_ran_are_both_on_record() -> None:
    (m,) = probe(tiny_job(per_device_train_batch_size=3, gradient_accumulation_steps=2, padding_free=False), steps=2)
    assert parse_job(m.job).padding_free is False
    assert m.ran.input_shape == (3, 64)
    assert m.ran.forward == "transformers.models.qwen2.modeling_qwen2.Qwen2Model.forward"
    assert (m.ran.attention, m.ran.checkpointing) == ("sdpa", "torch")
    assert m.ran.optimizer == "torch.optim.adamw.AdamW"
    assert m.steps_run == len(m.steps) == 2
    # LoRA of rank 4 on the seven projections of two layers: r (in + out) each.
    widths = [(128, 128), (128, 64), (128, 64), (128, 128), (128, 256), (128, 256), (256, 128)]
    assert m.ran.trainable_parameters == 2 * 4 * sum(a + b for a, b in widths)


@pytest.mark.parametrize(
    ("job", "trainer"),
    [
        (tiny_job(framework="transformers"), "loop"),
        (tiny_job(framework="transformers", load_in_16bit=None, full_finetuning=True), "loop"),
        (tiny_job(load_in_16bit=None, full_finetuning=True), "sft"),
        (tiny_job(packing=True, per_device_train_batch_size=2), "sft"),
        (tiny_job(padding_free=False, use_gradient_checkpointing=False), "loop"),
    ],
)
def test_the_other_ways_to_train_run_too(job: dict[str, Any], trainer: str) -> None:
    (m,) = probe(job, trainer=trainer, steps=2)
    assert (m.outcome, m.execution_path, m.trainer) == ("ok", "cpu", trainer), m.detail
    assert m.ran.input_shape == (job.get("per_device_train_batch_size", 1), 64)
    assert m.ran.checkpointing == ("none" if job.get("use_gradient_checkpointing") is False else "torch")
    assert all(step.loss is not None for step in m.steps)


@pytest.mark.slow
def test_documents_of_one_micro_batch_are_the_ones_that_were_asked_for() -> None:
    (m,) = probe(tiny_job(packing=True), sample_lengths=[32, 20, 12], steps=2)
    assert m.outcome == "ok", m.detail
    # Unsloth's CPU backend packs nothing: it pads the documents to the longest.
    assert (m.ran.input_shape, m.ran.packed_lengths) == ((3, 32), None)
    (m,) = probe(tiny_job(padding_free=True), sample_lengths=[32, 20, 12], steps=2, trainer="loop")
    assert (m.outcome, m.ran.input_shape, m.ran.packed_lengths) == ("ok", (1, 64), (32, 20, 12)), m.detail


def test_a_generation_is_measured() -> None:
    (m,) = probe(tiny_job(mode="generate", max_new_tokens=4, sequence_length=32), steps=2)
    assert (m.outcome, m.execution_path, m.steps) == ("ok", "cpu", ()), m.detail
    assert m.ran.input_shape == (1, 32)
    assert m.seconds["generate"] > 0
    assert (m.trainer, m.ran.trainable_parameters, m.ran.optimizer, m.ran.checkpointing) == (None, 0, None, None)


def test_a_job_that_the_stack_refuses_is_told_apart_from_a_crash() -> None:
    (m,) = probe(tiny_job(attn_implementation="flash_attention_2"), steps=2)
    assert m.outcome == "not_supported", (m.outcome, m.detail)
    assert "FlashAttention2" in (m.detail or "")
    assert m.num_hidden_layers == 2


def test_a_job_that_cannot_be_planned_is_refused_by_its_key_before_anything_starts() -> None:
    with pytest.raises(JobError, match="no_such_proj"):
        probe(tiny_job(target_modules=["no_such_proj"]))
