"""The ledger: every byte of the peak has a name, and the answer has the contract's shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from estimator import estimate, max_context, parse_job
from estimator.ledger import without
from tests.estimator.random_jobs import MODELS, STEADY, architecture_of, job_data, longest, run

JOB_KEYS = {
    "model",
    "gpu",
    "max_seq_length",
    "sequence_length",
    "num_hidden_layers",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "load_in_4bit",
    "load_in_8bit",
    "load_in_16bit",
    "load_in_fp8",
    "full_finetuning",
    "r",
    "target_modules",
    "lora_dropout",
    "modules_to_save",
    "use_gradient_checkpointing",
    "optim",
    "packing",
    "padding_free",
    "unsloth_tiled_mlp",
    "offload_embedding",
    "pin_host_memory",
    "block_compile",
    "attn_implementation",
    "framework",
    "mode",
    "per_device_eval_batch_size",
    "max_new_tokens",
    "host_ram_bytes",
    "confidence",
    "versions",
}
ESTIMATE_KEYS = {
    "peak_allocated_bytes",
    "peak_reserved_bytes",
    "peak_device_bytes",
    "host_bytes",
    "peak_phase",
    "phases",
    "terms",
    "execution_path",
    "verdict",
    "confidence",
    "limited_by",
    "calibration",
    "evidence",
    "rope",
    "assumptions",
    "job",
}
TRAINING_PHASES = ["load", "peft", "forward", "loss", "backward", "optimizer", "evaluation"]
GENERATION_PHASES = ["load", "peft", "prefill", "decode"]


@STEADY
@given(job_data())
def test_terms_sum_to_the_expected_peak_exactly(data):
    answer = run(data)
    assert sum(term.bytes for term in answer.terms) == answer.peak_allocated_bytes.expected
    for phase in answer.phases:
        assert sum(term.bytes for term in phase.terms) == phase.allocated_bytes


@STEADY
@given(job_data())
def test_the_peak_is_the_largest_phase_and_its_terms_are_that_phases(data):
    answer = run(data)
    peak = next(phase for phase in answer.phases if phase.phase == answer.peak_phase)
    assert peak.allocated_bytes == answer.peak_allocated_bytes.expected == max(p.allocated_bytes for p in answer.phases)
    assert peak.terms == answer.terms


@STEADY
@given(job_data())
def test_every_term_says_how_many_bytes_by_which_formula_from_where(data):
    for phase in run(data).phases:
        for term in phase.terms:
            assert term.name.isidentifier()
            assert term.bytes > 0
            assert isinstance(term.bytes, int)
            assert term.formula.strip()
            assert term.source.strip()
        assert all(row[1] >= 0 for row in phase.rows)


@STEADY
@given(job_data())
def test_phases_come_once_each_in_the_order_of_a_run(data):
    phases = [phase.phase for phase in run(data).phases]
    expected = GENERATION_PHASES if data.get("mode") == "generate" else TRAINING_PHASES
    assert phases == [phase for phase in expected if phase in phases]
    assert phases[:2] == ["load", "peft"]


@STEADY
@given(job_data())
def test_totals_nest_allocated_within_reserved_within_device(data):
    answer = run(data)
    for end in ("expected", "upper"):
        allocated, reserved, device = (
            getattr(total, end)
            for total in (answer.peak_allocated_bytes, answer.peak_reserved_bytes, answer.peak_device_bytes)
        )
        assert 0 < allocated <= reserved < device
    for total in (answer.peak_allocated_bytes, answer.peak_reserved_bytes, answer.peak_device_bytes):
        assert total.expected <= total.upper
    assert answer.host_bytes.expected == answer.host_bytes.pinned + answer.host_bytes.pageable


def as_others_read_it(answer: Any) -> dict[str, Any]:
    written = json.dumps(answer.to_json(), allow_nan=False)
    out: dict[str, Any] = json.loads(written)
    return out


@STEADY
@given(job_data())
def test_an_estimate_as_json_has_the_keys_of_the_contract(data):
    answer = run(data)
    out = as_others_read_it(answer)
    assert out.keys() >= ESTIMATE_KEYS
    for name in ("peak_allocated_bytes", "peak_reserved_bytes", "peak_device_bytes"):
        assert out[name].keys() == {"expected", "upper"}
    assert out["host_bytes"].keys() == {"expected", "pinned", "pageable"}
    assert all(phase.keys() >= {"phase", "allocated_bytes"} for phase in out["phases"])
    assert all(term.keys() >= {"name", "bytes", "formula"} for term in out["terms"])
    assert out["calibration"].keys() >= {"id", "points"}
    assert out["rope"].keys() >= {"native_length", "scaling"}
    assert out["verdict"] in ("fits", "does_not_fit", "uncertain")
    assert out["evidence"] in ("inside", "outside")
    assert all(isinstance(text, str) and text for text in out["assumptions"])


@STEADY
@given(job_data())
def test_the_answers_job_has_all_keys_and_no_null_that_the_stack_would_fill(data):
    job = as_others_read_it(run(data))["job"]
    assert job.keys() == JOB_KEYS
    assert {key for key, value in job.items() if value is None} <= {"host_ram_bytes"}
    formats = [job[f] for f in ("load_in_4bit", "load_in_8bit", "load_in_16bit", "load_in_fp8", "full_finetuning")]
    assert formats.count(True) == 1


@STEADY
@given(job_data())
def test_a_longest_context_as_json_has_the_keys_of_the_contract(data):
    out = as_others_read_it(longest(data))
    assert out.keys() >= {"max_seq_length", "limited_by", "assumptions", "job"}
    assert out["max_seq_length"].keys() == {"expected", "safe"}
    assert 0 <= out["max_seq_length"]["safe"] <= out["max_seq_length"]["expected"]
    assert out["limited_by"] in ("gpu", "host", "architecture")
    assert out["job"].keys() == JOB_KEYS


@pytest.mark.parametrize("model", MODELS)
def test_every_model_of_the_catalogue_is_planned_on_both_frameworks(model):
    for framework in ("unsloth", "transformers"):
        job = parse_job({"model": model, "framework": framework})
        assert estimate(job, architecture_of(model)).terms
        assert max_context(job, architecture_of(model)).expected >= 0


def test_rows_are_left_out_by_name():
    rows = [("a", 1, "1", "x"), ("b", 2, "2", "x"), ("c", 3, "3", "x")]
    assert without(rows, "a", "c") == [rows[1]]
