"""The design of a campaign: few twins, within the time, after which a fit knows the full depth's peak."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest

from ctxplan import Planner
from estimator import parse_job
from estimator.calibration.document import WIDTHS
from probes.errors import PointError
from probes.fitting.coefficients import NOISE, Equation, solve
from probes.fitting.compare import observed
from probes.fitting.design import ENOUGH, TIME_LIMIT_SECONDS, Design, Part, _candidates, _target, design, variants
from probes.fitting.seconds import SECONDS, errors_of, fit_seconds, work_of
from probes.points import parse_points
from tests.probes.documents import MEASUREMENTS

PLANNER = Planner(offline=True)
LLAMA_8B = {"model": "unsloth/Llama-3.1-8B-Instruct-bnb-4bit", "max_seq_length": 32_768}
UNSEEN = {
    "model_type": "cohere",
    "hidden_size": 5120,
    "intermediate_size": 17_408,
    "num_hidden_layers": 48,
    "num_attention_heads": 40,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 200_064,
    "max_position_embeddings": 131_072,
    "rope_theta": 1e6,
    "layer_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "use_qk_norm": False,
    "torch_dtype": "bfloat16",
}
JOBS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "eager": (LLAMA_8B, {}),
    "block compiled": (LLAMA_8B, {"batches": ["dense"]}),
    "two kinds of batch": (LLAMA_8B, {"batches": ["dense", "flattened"], "checkpointing": ["unsloth", True]}),
    "experts": ({"model": "Qwen/Qwen3-30B-A3B", "max_seq_length": 16_384}, {}),
    "windows": ({"model": "unsloth/gemma-3-1b-it-bnb-4bit", "max_seq_length": 65_536}, {}),
    "sinks": ({"model": "openai/gpt-oss-20b", "max_seq_length": 8192}, {}),
    "full fine-tuning": (
        {"model": "Qwen/Qwen2.5-0.5B-Instruct", "max_seq_length": 2048, "full_finetuning": True},
        {},
    ),
    "never seen": ({"model": UNSEEN, "max_seq_length": 65_536}, {}),
}


def designed(name: str, **options: Any) -> Design:
    asked, kinds = JOBS[name]
    job = parse_job(asked)
    return design(
        variants(job, **kinds), PLANNER.facts(job.model).architecture, calibration=PLANNER.calibration, **options
    )


@pytest.mark.parametrize("name", JOBS)
class TestDesigns:
    def test_few_twins_are_enough_within_five_minutes(self, name: str) -> None:
        found = designed(name)
        assert found.reached
        assert found.after <= ENOUGH < found.before
        assert found.seconds <= TIME_LIMIT_SECONDS
        assert 1 <= len(found.choices) <= 8

    def test_each_point_says_more_and_the_points_are_distinct(self, name: str) -> None:
        found = designed(name)
        errors = [found.before, *(one.standard_error for one in found.choices)]
        assert errors == sorted(errors, reverse=True)
        assert len({(repr(one.job), one.length) for one in found.choices}) == len(found.choices)

    def test_the_points_are_what_a_sweep_takes_and_fit_the_card(self, name: str) -> None:
        found = designed(name)
        points = [point for line in found.points() for point in parse_points(line)]
        assert sorted(point.sequence_length for point in points) == sorted(one.length for one in found.choices)
        for point in points:
            assert PLANNER.estimate(point.job).verdict == "fits"
            assert point.job.num_hidden_layers is not None
            assert 3 <= point.job.num_hidden_layers <= 7

    def test_it_is_the_same_each_time(self, name: str) -> None:
        assert designed(name) == designed(name)


class TestWhatItRestsOn:
    @pytest.mark.parametrize("name", ["block compiled", "experts", "never seen"])
    def test_a_fit_to_the_points_knows_the_full_depth_as_well_as_was_predicted(self, name: str) -> None:
        """Points with made-up coefficients and the fit's own noise, fitted by the fit itself, eighty times over."""
        asked, kinds = JOBS[name]
        job, dice = parse_job(asked), Random(11)
        architecture = PLANNER.facts(job.model).architecture
        jobs = variants(job, **kinds)
        found = design(jobs, architecture, calibration=PLANNER.calibration)
        chosen = {(repr(one.job), one.length) for one in found.choices}
        twins = [
            part
            for one in (c for j in jobs for c in _candidates(j, architecture, PLANNER.calibration))
            if (repr(one.job), one.length) in chosen
            for part in one.parts
        ]
        peak = max(_target(jobs[0], architecture), key=lambda part: part.bytes)
        errors = []
        for _ in range(80):
            truth = np.array([dice.uniform(0, 0.8) for _ in WIDTHS] + [0.0])
            fitted = solve([equation(part, truth, dice) for part in twins if part.key == peak.key])
            expected = sum(fitted.get(width, 0.0) * peak.sizes[i] for i, width in enumerate(WIDTHS))
            errors.append((expected - truth @ peak.sizes) / peak.bytes)
        assert float(np.sqrt(np.mean(np.square(errors)))) < 2 * ENOUGH

    def test_without_time_for_a_point_there_is_no_design(self) -> None:
        with pytest.raises(PointError, match="no twin"):
            designed("experts", time_limit=10)

    def test_where_the_time_is_short_it_says_that_the_points_are_not_enough(self) -> None:
        found = designed("two kinds of batch", time_limit=90)
        assert not found.reached
        assert found.seconds <= 90

    def test_only_training_is_calibrated(self) -> None:
        job = parse_job({**LLAMA_8B, "mode": "generate", "max_new_tokens": 8})
        with pytest.raises(PointError, match="mode"):
            design([job], PLANNER.facts(job.model).architecture)


class TestSeconds:
    def test_the_model_of_time_is_what_the_rows_give(self) -> None:
        """The rows that it names; `errors_of` of them is what its docstring says."""
        from probes.fitting.rows import read_files

        rows = observed(read_files([MEASUREMENTS / "h100-80gb-2026-11-25.jsonl"]))
        fitted = fit_seconds(rows)
        for name in ("load", "load_gib", "adapters", "adapters_layer", "step_layer", "step_dense", "step_attention"):
            assert getattr(fitted, name) == pytest.approx(getattr(SECONDS, name), rel=0.02), name
        assert fitted.first == pytest.approx(SECONDS.first)
        assert fitted.first_again == pytest.approx(SECONDS.first_again)
        errors = sorted(abs(np.log2(1 + error)) for error in errors_of(rows))
        assert errors[len(errors) // 2] < np.log2(1.2)
        assert errors[int(0.9 * len(errors)) - 1] < 1

    def test_a_longer_or_deeper_point_takes_longer_and_a_second_length_needs_no_load(self) -> None:
        job = parse_job({**LLAMA_8B, "num_hidden_layers": 3})
        architecture = PLANNER.facts(job.model).architecture
        twins = {one.length: one for one in _candidates(parse_job(LLAMA_8B), architecture, PLANNER.calibration)}
        short, long = (work_of(twins[length].prepared, twins[length].z) for length in (2048, 32_768))
        assert SECONDS.step(long) > SECONDS.step(short) > 0
        assert SECONDS.process(long) == SECONDS.process(short) > SECONDS.start


def equation(part: Part, truth: Any, dice: Random) -> Equation:
    """What a measurement of a part would give the fit."""
    noise = dice.gauss(0, 1) * NOISE * part.bytes
    widths = {width: int(part.sizes[i]) for i, width in enumerate(WIDTHS) if part.sizes[i]}
    return Equation(int(truth @ part.sizes + noise), widths, dict.fromkeys(widths, 2.0), part.bytes, "one")
