"""What holds for the proposals of any job: they are what they say, none is broken, none is dominated."""

from __future__ import annotations

from itertools import combinations
from typing import Any

from hypothesis import HealthCheck, assume, given, settings

from estimator import JobError, estimate, job_to_json, max_context, parse_job
from estimator.advise import Advice, Proposal, advise
from estimator.advise.answer import plain
from estimator.advise.prices import FREE
from tests.estimator.random_jobs import job_data, read

EXAMPLES = settings(
    derandomize=True,
    deadline=None,
    max_examples=60,
    database=None,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
)
"""A plan costs a hundred estimates, so there are fewer examples than of those."""

EVERYTHING = 50


def advice(data: dict[str, Any]) -> Advice:
    """The advice; a job that contradicts itself is no example."""
    try:
        return advise(*read(data), limit=EVERYTHING)
    except JobError:
        assume(False)
        raise


@EXAMPLES
@given(job_data())
def test_every_change_applied_to_the_job_gives_exactly_the_peak_and_the_verdict_named(data):
    for proposal in advice(data).proposals:
        changed = {**data, **plain(proposal.changes)}
        answer = estimate(*read(changed))
        standing = proposal.standing
        assert answer.peak_allocated_bytes == standing.peak_allocated_bytes
        assert (answer.verdict, answer.limited_by) == (standing.verdict, standing.limited_by)
        assert answer.host_bytes.expected == standing.host.total_bytes
        assert answer.evidence == ("inside" if standing.inside else "outside")
        assert answer.job == proposal.job
        again = estimate(parse_job(job_to_json(proposal.job)), read(data)[1])
        assert again.peak_allocated_bytes == standing.peak_allocated_bytes


@EXAMPLES
@given(job_data())
def test_every_longest_context_named_is_the_one_that_max_context_finds(data):
    answer = advice(data)
    assert answer.standing.longest == max_context(*read(data)).safe
    for proposal in answer.proposals[:3]:
        assert proposal.standing.longest == max_context(*read({**data, **plain(proposal.changes)})).safe


@EXAMPLES
@given(job_data())
def test_nothing_proposed_is_refused_or_known_to_break(data):
    for proposal in advice(data).proposals:
        answer = estimate(*read({**data, **plain(proposal.changes)}))
        assert not (answer.execution_path == "block_compiled" and answer.job.unsloth_tiled_mlp)
        if "unsloth_tiled_mlp" in proposal.changes:
            assert answer.execution_path == "eager"


@EXAMPLES
@given(job_data())
def test_no_proposal_is_dominated_by_another_of_its_goal(data):
    for one, other in combinations(advice(data).proposals, 2):
        if one.goal == other.goal:
            assert not at_least_as_good(one, other)
            assert not at_least_as_good(other, one)


def at_least_as_good(one: Proposal, other: Proposal) -> bool:
    """No dearer on any scale, no larger a peak, no shorter a context, no smaller a batch."""
    cheaper = all(mine <= theirs for mine, theirs in zip(one.price, other.price, strict=True))
    smaller = one.standing.peak_allocated_bytes.expected <= other.standing.peak_allocated_bytes.expected
    longer = one.standing.longest >= other.standing.longest
    if one.goal == "context":
        longer = one.job.max_seq_length >= other.job.max_seq_length
    wider = one.goal != "batch" or one.job.per_device_train_batch_size >= other.job.per_device_train_batch_size
    return cheaper and smaller and longer and wider


@EXAMPLES
@given(job_data())
def test_proposals_are_for_what_the_job_lacks_and_make_it_fit(data):
    answer = advice(data)
    if answer.standing.verdict == "fits":
        assert all(proposal.goal != "fit" for proposal in answer.proposals)
        assert all(proposal.standing.verdict == "fits" for proposal in answer.proposals)
        return
    assert all(proposal.goal == "fit" for proposal in answer.proposals)
    if answer.best_verdict == "fits":
        assert answer.proposals[0].standing.verdict == "fits"
        assert all(proposal.standing.verdict == "fits" for proposal in answer.proposals)
    elif answer.standing.verdict == "does_not_fit":
        assert {proposal.standing.verdict for proposal in answer.proposals} <= {"uncertain"}


@EXAMPLES
@given(job_data())
def test_the_order_of_prices_only_rises_and_is_the_sum_of_the_parts(data):
    proposals = advice(data).proposals
    orders = [proposal.price.order for proposal in proposals]
    assert orders == sorted(orders)
    for proposal in proposals:
        assert proposal.price.order == sum(option.price.order for option in proposal.options)
        assert all(option.words for option in proposal.options)
        assert proposal.code


@EXAMPLES
@given(job_data())
def test_a_longer_context_is_longer_and_a_larger_batch_larger(data):
    answer = advice(data)
    for proposal in answer.proposals:
        if proposal.goal == "context":
            length = proposal.job.max_seq_length
            is_native = proposal.price == FREE and length < proposal.standing.longest
            assert answer.job.max_seq_length < length <= proposal.standing.longest
            assert is_native or length == proposal.standing.longest
        if proposal.goal == "batch":
            assert proposal.job.per_device_train_batch_size > answer.job.per_device_train_batch_size


@EXAMPLES
@given(job_data())
def test_the_same_question_has_the_same_answer(data):
    assert advice(data) == advice(data)


@EXAMPLES
@given(job_data())
def test_gradients_are_accumulated_over_what_a_smaller_batch_leaves_out(data):
    for proposal in advice(data).proposals:
        changed = "gradient_accumulation_steps" in proposal.changes and not proposal.price.quality
        if changed and proposal.goal != "batch":
            before, after = parse_job(data), proposal.job
            assert (
                after.per_device_train_batch_size * after.gradient_accumulation_steps
                == before.per_device_train_batch_size * before.gradient_accumulation_steps
            )
