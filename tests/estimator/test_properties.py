"""What must hold for any job: more never needs less, offloading never needs more, and the inverse agrees."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from estimator import Estimate, estimate, job_to_json, max_context, parse_job
from estimator.allocator import GIB, MIB
from estimator.device import find_device
from tests.estimator.random_jobs import STEADY, architecture_of, job_data, longest, read, run, same_regime

MORE = st.integers(2, 7)


def needs(answer: Estimate) -> int:
    return answer.peak_allocated_bytes.expected


def assert_needs_no_less(data: dict[str, Any], more: dict[str, Any]) -> None:
    small, large = run(data), run(data, **more)
    assume(same_regime(small, large))
    roomy = has_its_full_loss_budget(large)
    for before, after in zip(small.phases, large.phases, strict=True):
        assert before.phase == after.phase
        if roomy or before.phase not in CUT_TO_WHAT_IS_FREE:
            assert before.allocated_bytes <= after.allocated_bytes, before.phase
    if roomy or small.peak_phase not in CUT_TO_WHAT_IS_FREE:
        assert small.peak_allocated_bytes <= large.peak_allocated_bytes
        assert small.peak_reserved_bytes <= large.peak_reserved_bytes
        assert small.peak_device_bytes <= large.peak_device_bytes


CUT_TO_WHAT_IS_FREE = ("loss", "evaluation")


def has_its_full_loss_budget(answer: Estimate) -> bool:
    """Below 4 GiB of free memory the fused loss takes half of it, so its own regime changes with every byte."""
    return answer.peak_reserved_bytes.expected + 4 * GIB < answer.usable_bytes


class TestWithTheRegimeHeldFixed:
    @STEADY
    @given(job_data(longest=100_000), st.integers(1, 20_000))
    def test_more_tokens_never_need_less(self, data, more):
        assert_needs_no_less(data, {"max_seq_length": data["max_seq_length"] + more})

    @STEADY
    @given(job_data(longest=100_000), st.data())
    def test_a_longer_sequence_under_one_max_seq_length_never_needs_less(self, data, draw):
        length = draw.draw(st.integers(1, data["max_seq_length"]))
        assert_needs_no_less({**data, "sequence_length": length}, {"sequence_length": data["max_seq_length"]})

    @STEADY
    @given(job_data(longest=100_000), MORE)
    def test_a_larger_batch_never_needs_less(self, data, times):
        assert_needs_no_less(data, {"per_device_train_batch_size": times * data["per_device_train_batch_size"]})

    @STEADY
    @given(job_data(longest=100_000), MORE)
    def test_a_higher_rank_never_needs_less(self, data, times):
        assert_needs_no_less(data, {"r": times * data["r"]})

    @STEADY
    @given(job_data(longest=100_000), st.integers(1, 20), MORE)
    def test_more_layers_never_need_less(self, data, layers, more):
        assume(layers + more <= architecture_of(data["model"]).num_hidden_layers)
        assert_needs_no_less({**data, "num_hidden_layers": layers}, {"num_hidden_layers": layers + more})

    @STEADY
    @given(job_data(longest=100_000))
    def test_accumulating_gradients_never_needs_less(self, data):
        assert_needs_no_less({**data, "gradient_accumulation_steps": 1}, {"gradient_accumulation_steps": 2})


class TestCheckpointing:
    """Offloading pays, and so does recomputing, where layer inputs outweigh what trains.

    "unsloth" holds 4 u at the last layer (two staging buffers, the embedding's output, the layer's input) where plain
    checkpointing holds L u, but 3 u at the first layer where plain checkpointing holds u. All gradients exist only
    there: so it is never worse once the (L - 3) u that it saves at the last layer outweigh the gradients (and a step's
    temporaries, under which the staging buffers lie too). Plain checkpointing holds the recomputed output, u, that no
    checkpointing spares: the same rule covers it. Sizes below it are Unsloth's own exceptions: few layers, short
    lengths, large ranks, full fine-tuning; and an evaluation of a larger batch than the training's, which runs beside
    the staging buffers.
    """

    @STEADY
    @given(job_data(longest=100_000), st.integers(4, 40))
    def test_unsloth_never_needs_more_than_true(self, data, layers):
        job = training(data, layers)
        offloaded, plain = run(job, use_gradient_checkpointing="unsloth"), run(job, use_gradient_checkpointing=True)
        assume(inputs_outweigh_what_trains(plain) and same_loss(offloaded, plain))
        assert needs(offloaded) <= needs(plain)

    @STEADY
    @given(job_data(longest=100_000), st.integers(4, 40))
    def test_true_never_needs_more_than_false(self, data, layers):
        job = training(data, layers)
        plain, kept = run(job, use_gradient_checkpointing=True), run(job, use_gradient_checkpointing=False)
        assume(inputs_outweigh_what_trains(plain) and same_loss(plain, kept))
        assert needs(plain) <= needs(kept)

    @STEADY
    @given(job_data(longest=2000), st.integers(1, 40))
    def test_unsloth_is_plain_checkpointing_where_no_input_is_moved(self, data, layers):
        job = training(data, layers)
        offloaded, plain = run(job, use_gradient_checkpointing="unsloth"), run(job, use_gradient_checkpointing=True)
        assume(not offloaded.regime["inputs_offloaded"])
        assert needs(offloaded) == needs(plain)


def training(data: dict[str, Any], layers: int) -> dict[str, Any]:
    """The job as a training run of that many layers."""
    assume(layers <= architecture_of(data["model"]).num_hidden_layers)
    return {
        **data,
        "num_hidden_layers": layers,
        "per_device_eval_batch_size": None,
        "mode": "train",
        "max_new_tokens": 0,
    }


def inputs_outweigh_what_trains(answer: Estimate) -> bool:
    job = answer.job
    u = 2 * job.per_device_train_batch_size * job.max_seq_length * architecture_of(str(job.model)).hidden_size
    step = next(phase for phase in answer.phases if phase.phase == "optimizer")
    trains = sum(term.bytes for term in step.terms if term.name in ("gradients", "optimizer_temporaries"))
    return u > 2 * MIB and ((job.num_hidden_layers or 0) - 3) * u >= trains


def same_loss(one: Estimate, other: Estimate) -> bool:
    """The fused loss takes a share of the memory that is free, so what is saved elsewhere it may use."""
    return all(one.regime[key] == other.regime[key] for key in ("loss", "loss_rows", "embedding_offloaded"))


@STEADY
@given(job_data(), st.floats(0.5, 0.99), st.floats(0.5, 0.99))
def test_the_bound_grows_with_the_confidence_and_what_is_expected_does_not(data, one, other):
    low, high = (run(data, confidence=c) for c in sorted((one, other)))
    for name in ("peak_allocated_bytes", "peak_reserved_bytes", "peak_device_bytes"):
        assert getattr(low, name).expected == getattr(high, name).expected
        assert getattr(low, name).upper <= getattr(high, name).upper


@STEADY
@given(job_data())
def test_the_verdict_follows_from_the_bytes(data):
    answer = run(data)
    device = find_device(data["gpu"])
    assert answer.usable_bytes == device.usable_bytes
    ram = data["host_ram_bytes"]
    if answer.verdict != "does_not_fit":
        assert answer.peak_device_bytes.expected <= device.total_bytes
        assert ram is None or answer.host_bytes.expected <= ram
    if answer.verdict == "fits":
        assert answer.peak_allocated_bytes.upper <= device.usable_bytes
    if needs(answer) > device.usable_bytes:
        assert (answer.verdict, answer.limited_by) == ("does_not_fit", "gpu")
    elif ram is not None and answer.host_bytes.expected > ram:
        assert answer.verdict == "does_not_fit"


@STEADY
@given(job_data())
def test_a_host_that_is_not_named_never_limits(data):
    answer = run({**data, "host_ram_bytes": None})
    assert answer.limited_by == "gpu"
    assert answer.host_bytes.expected > 0


@STEADY
@given(job_data())
def test_the_longest_context_and_the_estimate_agree(data):
    found = longest(data)
    job, architecture = read(data)

    def verdict(length: int) -> str:
        return estimate(replace(job, max_seq_length=length, sequence_length=None), architecture).verdict

    if found.safe:
        assert verdict(found.safe) == "fits"
        assert found.estimate is not None
        assert found.estimate.verdict == "fits"
        assert found.estimate.job.max_seq_length == found.estimate.job.sequence_length == found.safe
    else:
        assert found.estimate is None
    if found.expected:
        assert verdict(found.expected) != "does_not_fit"
    assert verdict(found.safe + 1) != "fits"
    assert verdict(found.expected + 1) == "does_not_fit"
    dice = random.Random(found.safe)
    inside = [dice.randint(first, last) for first, last in found.not_safe]
    for length in [*inside, *(end for gap in found.not_safe for end in gap)]:
        assert verdict(length) != "fits"
    for length in (dice.randint(1, found.safe) for _ in range(12 if found.safe else 0)):
        if not any(first <= length <= last for first, last in found.not_safe):
            assert verdict(length) == "fits", length


@STEADY
@given(job_data())
def test_gaps_are_apart_in_order_and_below_what_is_safe(data):
    found = longest(data)
    ends = [end for gap in found.not_safe for end in gap]
    assert ends == sorted(ends)
    assert all(first <= last < found.safe for first, last in found.not_safe)
    assert all(gap[0] > before[1] + 1 for before, gap in pairwise(found.not_safe))


@STEADY
@given(job_data())
def test_a_longer_search_does_not_depend_on_the_length_that_the_job_names(data):
    found, again = longest(data), longest({**data, "max_seq_length": 17, "sequence_length": 3})
    assert (found.expected, found.safe, found.not_safe) == (again.expected, again.safe, again.not_safe)


@STEADY
@given(job_data())
def test_a_resolved_job_estimated_again_gives_the_identical_estimate(data):
    answer = run(data)
    again = estimate(parse_job(job_to_json(answer.job)), architecture_of(data["model"]))
    assert again.job == answer.job
    first, second = answer.to_json(), again.to_json()
    # What had to be assumed is said in the job once it is resolved, so it is not assumed again.
    assert set(second.pop("assumptions")) <= set(first.pop("assumptions"))
    assert second == first


@STEADY
@given(job_data())
def test_an_estimate_does_not_depend_on_what_was_asked_before(data):
    first = run(data)
    job, architecture = read(data)
    max_context(job, architecture)
    assert estimate(job, architecture) == first
