"""What is said of a run while it runs, from a plan and from numbers."""

from __future__ import annotations

from typing import Any

import pytest

from ctxplan import Planner
from ctxplan.failure import is_out_of_memory
from ctxplan.watching import GIB, Seen, after_a_step, before_the_run, explain, plan_run
from estimator import parse_job

PLANNER = Planner(offline=True)
LLAMA = {"model": "unsloth/Llama-3.1-8B-Instruct-bnb-4bit", "gpu": "H100-80GB", "max_seq_length": 32768, "r": 32}


def planned(longest_tokens: int | None = None, **job: Any) -> Any:
    return plan_run(parse_job({**LLAMA, **job}), PLANNER, longest_tokens=longest_tokens)


class OutOfMemoryError(RuntimeError):
    """Named as torch's, which is known by its name."""


class TestBefore:
    def test_a_run_that_fits_is_said_nothing_of(self) -> None:
        assert before_the_run(planned(longest_tokens=32768)) == []

    def test_the_longest_sample_is_warned_of_with_its_bytes_and_the_cards(self) -> None:
        plan = planned(longest_tokens=600_000, max_seq_length=1_000_000, sequence_length=4096)
        (said,) = before_the_run(plan)
        assert said.startswith("the longest sample (1 x 600,000 tokens) will not fit: ")
        expected = plan.longest.peak_allocated_bytes.expected / GIB
        assert f"{expected:.2f} GiB are expected" in said
        assert "the H100-80GB leaves" in said

    def test_a_sample_that_is_cut_counts_as_long_as_it_is_cut_to(self) -> None:
        plan = planned(longest_tokens=10**6)
        assert plan.longest.job.sequence_length == 32768

    def test_an_evaluation_that_does_not_fit_is_warned_of_though_the_steps_do(self) -> None:
        plan = planned(per_device_eval_batch_size=64)
        assert plan.typical.verdict == "fits"
        (said,) = before_the_run(plan)
        assert said.startswith("the evaluation (per_device_eval_batch_size 64, 32,768 tokens) will not fit")

    def test_a_host_without_the_ram_is_named(self) -> None:
        plan = planned(model="unsloth/Llama-3.3-70B-Instruct-bnb-4bit", max_seq_length=89389, host_ram_bytes=64 * GIB)
        assert "GiB of host RAM are expected, of 64.00" in before_the_run(plan)[0]


class TestAfterAStep:
    def test_a_step_as_planned_is_said_nothing_of(self) -> None:
        plan = planned()
        bound = plan.typical.peak_allocated_bytes
        assert after_a_step(plan, Seen(bound.upper, bound.upper), 1) == []

    def test_one_that_took_more_is_and_by_how_much(self) -> None:
        plan = planned()
        bound = plan.typical.peak_allocated_bytes
        (said,) = after_a_step(plan, Seen(bound.expected + 3 * GIB, 0), 2)
        assert said.startswith("step 2 took ")
        assert "3.00 more than was planned for 32,768 tokens" in said

    def test_what_is_still_to_come_is_judged_with_as_much_more(self) -> None:
        plan = planned(longest_tokens=400_000, max_seq_length=400_000, sequence_length=32768)
        assert plan.longest.verdict != "does_not_fit"
        bound = plan.typical.peak_allocated_bytes
        said = after_a_step(plan, Seen(bound.expected + 20 * GIB, 0), 1)
        assert len(said) == 2
        assert said[1].startswith("with as much more, the longest sample needs ")
        assert said[1].endswith("it will not fit")


class TestExplain:
    @pytest.mark.parametrize(
        "error",
        [
            OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
            MemoryError(),
            RuntimeError("CUDA error: out of memory"),
        ],
    )
    def test_whose_memory_ended_is_known_by_name_and_text(self, error: Exception) -> None:
        assert is_out_of_memory(error)

    def test_another_error_is_none(self) -> None:
        assert not is_out_of_memory(ValueError("shapes do not match"))

    def test_the_plan_what_was_seen_and_the_first_change_stand_together(self) -> None:
        job = parse_job(
            {
                **LLAMA,
                "model": "unsloth/Llama-3.3-70B-Instruct-bnb-4bit",
                "max_seq_length": 89389,
                "padding_free": False,
            }
        )
        error = OutOfMemoryError("CUDA out of memory. Tried to allocate 4.77 GiB. GPU 0 has a total capacity of 79 GiB")
        text = explain(error, job, PLANNER, Seen(78 * GIB, 79 * GIB))
        assert "block_compiled path" in text
        assert "does_not_fit" in text
        assert "seen: tried to allocate 4.77 GiB; 78.00 GiB were allocated at most, 79.00 reserved" in text
        assert "the largest of what was planned: base_weights" in text
        assert "change first: " in text

    def test_a_run_that_cannot_be_planned_is_said_to_be_one(self) -> None:
        job = parse_job({**LLAMA, "target_modules": ["nothing_proj"]})
        assert "this run cannot be planned: target_modules" in explain(MemoryError(), job, PLANNER)
