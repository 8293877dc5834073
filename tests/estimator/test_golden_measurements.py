"""The memory model against every committed measurement: the same run, the same bytes."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from tests.estimator.measured import PLANNER, Row, all_rows, measured_rows, off_by, phase_bytes

MEASURED = measured_rows()
TRAINING = [row for row in MEASURED if row.is_training and not row.double_buffer_off]
BY_PATH = {
    path: [r for r in TRAINING if r.path == path] for path in ("eager", "block_compiled", "generated", "transformers")
}
FUSED = [r for r in BY_PATH["eager"] if r.adapts_everything and r.family == "dense"]

FULL_LOGITS = [r for r in BY_PATH["generated"] if r.family in ("granite", "gemma3_text")]
FULL_FINETUNING = [r for r in BY_PATH["generated"] if r.job["full_finetuning"]]
EIGHT_BIT = [r for r in BY_PATH["generated"] if r.job["load_in_8bit"]]
GPT_OSS = [r for r in BY_PATH["generated"] if r.family == "gpt_oss"]
# A synthetic NF4 checkpoint ran, as Unsloth loads for this name; the catalogue's config is the MXFP4 one of openai.
GPT_OSS_IN_NF4 = [r for r in GPT_OSS if r.job["load_in_4bit"]]
DOUBLE_BUFFER_OFF = [row for row in MEASURED if row.is_training and row.double_buffer_off]
OUT_OF_MEMORY = [row for row in all_rows() if row.data["outcome"] == "out_of_memory"]


def each(rows: Iterable[Row]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("row", [pytest.param(row, id=row.name) for row in rows])


def excluding(rows: Iterable[Row], *others: list[Row]) -> list[Row]:
    left_out = {row.name for other in others for row in other}
    return [row for row in rows if row.name not in left_out]


def test_all_committed_rows_are_held():
    assert len(all_rows()) >= 223
    assert {row.path for row in MEASURED} == set(BY_PATH)
    assert all(len(rows) > 20 for rows in BY_PATH.values())


def test_rows_that_are_not_compared_say_why():
    """Out of memory has its own test; else only what is no GPU byte of a step may be left out."""
    left_out = excluding(all_rows(), list(MEASURED), OUT_OF_MEMORY)
    assert all(row.path == "cpu" or row.data["detail"] for row in left_out)


def test_no_job_that_ran_out_of_memory_is_said_to_fit():
    assert [row.name for row in OUT_OF_MEMORY if row.estimate.verdict == "fits"] == []


@each(MEASURED)
class TestEveryRow:
    def test_runs_on_the_path_that_ran(self, row):
        assert row.estimate.execution_path == row.path

    def test_reserves_no_more_than_the_bound(self, row):
        assert row.estimate.peak_reserved_bytes.upper >= row.data["peak_reserved_bytes"]

    def test_peaks_no_higher_than_the_bound(self, row):
        assert row.estimate.confidence == 0.95
        assert row.estimate.peak_allocated_bytes.upper >= row.data["peak_allocated_bytes"]

    def test_is_inside_the_evidence_only_where_structure_says_all(self, row):
        if row.path in ("block_compiled", "generated"):
            assert row.estimate.evidence == "outside"
        elif row.is_reference:
            assert row.estimate.evidence == "inside"

    def test_is_not_refused_on_the_card_where_it_ran(self, row):
        assert row.estimate.verdict != "does_not_fit"


@each(MEASURED)
def test_bytes_of_load_and_of_peft_are_right_to_a_fifth_of_a_percent(row):
    assert abs(off_by(planned_when_done(row, "load"), row.data["after_load_allocated_bytes"])) < 0.002
    if row.data["after_peft_allocated_bytes"] is None:
        assert row.job["full_finetuning"] or row.job["mode"] == "generate"  # no adapters are added
        return
    assert abs(off_by(planned_when_done(row, "peft"), row.data["after_peft_allocated_bytes"])) < 0.002


@each([r for r in MEASURED if r.data["ran"]["embedding_offloaded"] and (r.data["load"] or {}).get("peak")])
def test_an_embedding_that_leaves_counts_until_it_has_left(row):
    for stage in ("load", "peft"):
        peak = row.data[stage]["peak"]["allocated_bytes"]
        if peak is not None:
            assert abs(off_by(phase_bytes(row.estimate, stage), peak)) < 0.002


def planned_when_done(row: Row, stage: str) -> int:
    """What is planned to be allocated at the end of a stage: an embedding that leaves then counts in its peak alone."""
    embedding = {p.phase: sum(t.bytes for t in p.terms if t.name == "embedding") for p in row.estimate.phases}
    following = {"load": "peft", "peft": "forward"}[stage]
    left = embedding[stage] if not embedding.get(following, embedding[stage]) else 0
    return phase_bytes(row.estimate, stage) - left


def peak_off_by(row: Row) -> float:
    return off_by(row.estimate.peak_allocated_bytes.expected, row.data["peak_allocated_bytes"])


def planned_peak_phase(row: Row) -> str:
    return {"loss": "forward"}.get(row.estimate.peak_phase, row.estimate.peak_phase)


@each(FUSED)
class TestAnEagerStep:
    def test_peaks_within_one_percent(self, row):
        assert abs(peak_off_by(row)) < 0.01

    def test_peaks_in_the_phase_that_was_measured(self, row):
        assert planned_peak_phase(row) == row.peak_phase

    def test_has_the_measured_peak_of_its_backward(self, row):
        # One small model in 16 bit, whose peak is its loss, had two hidden states more in a backward below that.
        allowed = 0.015 if row.peak_phase != "backward" else 0.01
        assert abs(off_by(phase_bytes(row.estimate, "backward"), row.data["backward_peak_bytes"])) < allowed

    def test_has_the_measured_peak_of_its_forward_and_loss(self, row):
        # Two twins of 3 layers at 2,048 tokens were seen 1.1 % higher in a forward that is not their peak. A tiled MLP
        # lets the attention show, which the MLP hides elsewhere: half a hidden state below the plan, under the peak.
        allowed = 0.025 if row.job["unsloth_tiled_mlp"] else 0.012
        assert abs(off_by(phase_bytes(row.estimate, "forward", "loss"), row.data["forward_peak_bytes"])) < allowed

    def test_has_the_measured_peak_of_its_optimizer_step(self, row):
        if row.is_reference:
            # That loop kept the loss, and with it the graph's two hidden states, through the optimizer step.
            assert phase_bytes(row.estimate, "optimizer") < row.data["optimizer_peak_bytes"]
        else:
            assert abs(off_by(phase_bytes(row.estimate, "optimizer"), row.data["optimizer_peak_bytes"])) < 0.01


@each([r for r in FUSED if r.is_reference])
class TestTheReferenceRows:
    def test_peak_within_a_thousandth(self, row):
        assert abs(peak_off_by(row)) < 0.001

    def test_reserve_and_device_bytes_are_near(self, row):
        reserved, device = row.estimate.peak_reserved_bytes.expected, row.estimate.peak_device_bytes.expected
        assert abs(off_by(reserved, row.data["peak_reserved_bytes"])) < 0.025
        assert abs(off_by(device, row.data["device_used_bytes"])) < 0.025


@each([r for r in BY_PATH["block_compiled"] if r.is_reference])
def test_compiled_reference_rows_have_the_measured_device_bytes(row):
    assert abs(off_by(row.estimate.peak_device_bytes.expected, row.data["device_used_bytes"])) < 0.035


@each([r for r in BY_PATH["eager"] if r.family == "dense" and not r.adapts_everything])
def test_eager_steps_with_dropout_or_some_projections_peak_within_1_percent(row):
    assert abs(peak_off_by(row)) < 0.01


@each([r for r in BY_PATH["eager"] if r.family == "gemma2"])
def test_eager_steps_of_gemma_2_peak_within_2_percent(row):
    assert abs(peak_off_by(row)) < 0.02
    assert planned_peak_phase(row) == row.peak_phase


def test_every_training_row_has_its_peak_held_by_a_test_of_this_file():
    held = [r for r in BY_PATH["eager"] if r.family in ("dense", "gemma2")]
    others = [r for path, rows in BY_PATH.items() if path != "eager" for r in rows]
    one_peak = [r for r in MEASURED if r.data["evaluation"] or r.data["generation"]]
    assert [r.name for r in excluding(MEASURED, held, others, one_peak, DOUBLE_BUFFER_OFF)] == []


@each(BY_PATH["block_compiled"])
def test_compiled_steps_peak_within_1_5_percent_and_3_off_the_beaten_path(row):
    assert abs(peak_off_by(row)) < (0.015 if row.adapts_everything else 0.03)
    assert planned_peak_phase(row) == row.peak_phase


@each(BY_PATH["transformers"])
def test_stock_transformers_steps_peak_within_1_5_percent(row):
    assert abs(peak_off_by(row)) < 0.015
    assert planned_peak_phase(row) == row.peak_phase


@each(excluding(BY_PATH["generated"], EIGHT_BIT))
def test_generated_steps_peak_within_8_percent(row):
    assert abs(peak_off_by(row)) < 0.08


@each(excluding(GPT_OSS, GPT_OSS_IN_NF4))
def test_steps_of_gpt_oss_as_it_is_published_or_in_16_bit_peak_within_2_percent(row):
    assert abs(peak_off_by(row)) < 0.02
    assert planned_peak_phase(row) == row.peak_phase


@each([r for r in BY_PATH["generated"] if r.family == "qwen3_moe"])
def test_steps_of_qwen_3_moe_peak_within_1_percent(row):
    assert abs(peak_off_by(row)) < 0.01
    assert planned_peak_phase(row) == row.peak_phase


@each(FULL_LOGITS)
def test_steps_with_full_logits_peak_within_3_percent_and_2_in_the_trainer(row):
    assert abs(peak_off_by(row)) < (0.02 if row.data["trainer"] == "sft" else 0.03)
    # In a bare loop of granite at 2,048 tokens the forward and the backward of the loss are 2 % apart.
    assert planned_peak_phase(row) == row.peak_phase or row.data["trainer"] == "loop"


@each([r for r in [*FULL_LOGITS, *FULL_FINETUNING] if r.data["trainer"] == "loop"])
def test_the_trainer_is_planned_to_need_more_than_a_bare_loop(row):
    """It reads full logits for its metrics, and keeps 32-bit state of an embedding (transformers/trainer.py,
    GlobalOptimManager)."""
    by_the_trainer = PLANNER.estimate(row.compared.job, trainer="sft").peak_allocated_bytes.expected
    assert by_the_trainer > row.estimate.peak_allocated_bytes.expected
    assert by_the_trainer > row.data["peak_allocated_bytes"]


@each(EIGHT_BIT)
def test_int8_is_known_to_be_under_16_percent_short(row):
    # bitsandbytes' int8 matmul keeps what no snapshot has been taken of; the bound covers it.
    assert -0.16 < peak_off_by(row) <= 0


@each(DOUBLE_BUFFER_OFF)
def test_without_the_second_staging_buffer_a_run_needs_just_that_much_less(row):
    peak = row.estimate.phases[[p.phase for p in row.estimate.phases].index(row.estimate.peak_phase)]
    second = next(t.bytes for t in peak.terms if t.name == "offload_staging_second")
    assert abs(off_by(peak.allocated_bytes - second, row.data["peak_allocated_bytes"])) < 0.001


BEFORE_TRAINING = ("optimizer_state", "offload_staging", "offload_staging_second", "cublas_workspace_backward")
"""What a training step leaves behind; the measured evaluations ran before one, the planned ones run after."""


@each([r for r in MEASURED if r.data["evaluation"]])
def test_an_evaluation_needs_what_was_measured_beside_what_training_left(row):
    phase = next(p for p in row.estimate.phases if p.phase == "evaluation")
    left_behind = sum(t.bytes for t in phase.terms if t.name in BEFORE_TRAINING)
    assert abs(off_by(phase.allocated_bytes - left_behind, row.data["peak_allocated_bytes"])) < 0.015


@each([r for r in MEASURED if r.job["mode"] == "generate"])
def test_a_generation_peaks_within_2_percent(row):
    assert abs(peak_off_by(row)) < 0.02
    assert row.estimate.peak_phase == "prefill"


STEPS_OF_UNSLOTH = [*BY_PATH["block_compiled"], *BY_PATH["generated"]]


@each([r for r in STEPS_OF_UNSLOTH if not r.is_reference and r.family != "gemma3_text"])
def test_optimizer_steps_of_the_other_unsloth_paths_peak_within_1_percent(row):
    # Left out: the first H100 rows, whose loop held the loss's graph, and gemma-3, whose steps were seen 7 % lower.
    assert abs(off_by(phase_bytes(row.estimate, "optimizer"), row.data["optimizer_peak_bytes"])) < 0.01
