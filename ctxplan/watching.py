"""What to say of a run while it runs: the plan beside what is seen, before the memory ends and when it has.

Nothing of torch or transformers is needed here: what was seen comes as numbers and text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ctxplan.failure import is_of_the_host, numbers_of, phase_of
from ctxplan.naming import gpu_name
from ctxplan.planning import Planner
from estimator import CtxplanError, Estimate, Job
from estimator.advise import Proposal

GIB = 2**30
MIB = 2**20
LARGEST_TERMS = 5
TRAINED = "lora_parameters"
FOLLOW_WHAT_TRAINS = frozenset({TRAINED, "gradients", "optimizer_state"})
"""Terms that are in proportion to the bytes that train."""
ANOTHER_RUN = 0.01
"""A model whose trained bytes are off the plan's by more than this share trains something else than was planned."""


class Seen(NamedTuple):
    """Torch's peaks of the run so far, bytes."""

    allocated_bytes: int
    reserved_bytes: int


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """What is expected of a run.

    Attributes:
        typical: of a micro-batch as long as the job says, without evaluation. longest: of the longest sample, where it
            is known and another length. evaluation: of the job with its evaluation, where it has one.
        trained_bytes: what the live model trains, where it is known.
    """

    typical: Estimate
    longest: Estimate | None = None
    evaluation: Estimate | None = None
    trained_bytes: int | None = None

    @property
    def planned_trained_bytes(self) -> int:
        """What the plan trains beside the base weights; 0 in full fine-tuning, where they are what trains."""
        return sum(term.bytes for term in self.typical.terms if term.name == TRAINED)

    def beyond(self, estimate: Estimate) -> int:
        """Bytes that an estimate's peak needs beside its own, for what trains beside what was planned; negative where
        less trains."""
        planned = self.planned_trained_bytes
        if self.trained_bytes is None or not planned:
            return 0
        share = self.trained_bytes / planned - 1
        if abs(share) <= ANOTHER_RUN:
            return 0
        return round(share * sum(term.bytes for term in estimate.terms if term.name in FOLLOW_WHAT_TRAINS))

    def to_come(self) -> Iterator[tuple[str, Estimate]]:
        """What the first steps have not shown, by name."""
        if self.longest is not None:
            yield "the longest sample", self.longest
        if self.evaluation is not None:
            yield "the evaluation", self.evaluation


def plan_run(
    job: Job, planner: Planner, *, longest_tokens: int | None = None, trained_bytes: int | None = None
) -> RunPlan:
    """Plan a run's steps, its longest sample and its evaluation.

    Args:
        longest_tokens: tokens of the longest sample that is not cut. trained_bytes: of the live model's parameters
            that train.

    Raises:
        CtxplanError: the job cannot be planned.
    """
    training = replace(job, per_device_eval_batch_size=None)
    typical = planner.estimate(training)
    longest = None
    if longest_tokens is not None:
        length = min(longest_tokens, job.max_seq_length)
        longest = planner.estimate(replace(training, sequence_length=length))
    evaluation = planner.estimate(job) if job.per_device_eval_batch_size else None
    return RunPlan(typical=typical, longest=longest, evaluation=evaluation, trained_bytes=trained_bytes)


def at_length(plan: RunPlan, planner: Planner, length: int | None) -> Estimate:
    """What is expected of a micro-batch of rows of so many tokens: what a step is to be compared with.

    Args:
        length: None, or more than the job's longest, for a row as long as the plan's.
    """
    job = plan.typical.job
    if length is None or length >= (job.sequence_length or job.max_seq_length):
        return plan.typical
    return planner.estimate(replace(job, sequence_length=length))


def before_the_run(plan: RunPlan) -> list[str]:
    """Warnings that the plan alone gives, a sentence each."""
    said = []
    beyond = plan.beyond(plan.typical)
    if beyond:
        said.append(
            f"the model trains {_mib(plan.trained_bytes or 0)} MiB of parameters, not the "
            f"{_mib(plan.planned_trained_bytes)} that were planned: with gradients and optimizer state, "
            f"{_gib(abs(beyond))} GiB {'more' if beyond > 0 else 'less'} than planned"
        )
    for what, estimate in (("the longest sample", plan.longest or plan.typical), ("the evaluation", plan.evaluation)):
        if estimate is None:
            continue
        named = f"{what} ({_batch(estimate, what)})"
        if estimate.verdict != "fits":
            said.append(_does_not_fit(named, estimate))
        elif (needs := estimate.peak_allocated_bytes.expected + plan.beyond(estimate)) > estimate.room_bytes:
            said.append(f"{named} will not fit with it: {_gib(needs)} GiB are expected of {_gib(estimate.room_bytes)}")
    return said


def will_not_fit(plan: RunPlan) -> bool:
    """Whether a part of the run is expected to need more than there is."""
    parts = [estimate for estimate in (plan.typical, plan.longest, plan.evaluation) if estimate is not None]
    return any(
        part.verdict == "does_not_fit" or part.peak_allocated_bytes.expected + plan.beyond(part) > part.room_bytes
        for part in parts
    )


def after_a_step(plan: RunPlan, seen: Seen, step: int, expected: Estimate | None = None) -> list[str]:
    """Warnings that one of the first steps gives: more than planned, and what that means for what is still to come.

    Args:
        expected: of a step as long as the longest so far (`at_length`); by default the plan's typical one.
    """
    expected = expected or plan.typical
    beyond = plan.beyond(expected)
    bound = expected.peak_allocated_bytes
    if seen.allocated_bytes <= bound.upper + max(beyond, 0):
        return []
    more = seen.allocated_bytes - bound.expected
    said = [
        f"step {step} took {_gib(seen.allocated_bytes)} GiB, {_gib(more)} more than was planned for "
        f"{expected.job.sequence_length:,} tokens (bound {_gib(bound.upper)} GiB)"
    ]
    for what, estimate in plan.to_come():
        if estimate.peak_allocated_bytes.expected + more > estimate.room_bytes:
            needs = _gib(estimate.peak_allocated_bytes.expected + more)
            said.append(f"with as much more, {what} needs {needs} GiB of {_gib(estimate.room_bytes)}: it will not fit")
    return said


def explain(error: BaseException, job: Job, planner: Planner, seen: Seen | None = None) -> str:
    """What was planned, what was seen when the memory ended, and what to change first; a few lines."""
    try:
        estimate = planner.estimate(job)
    except CtxplanError as refusal:
        return f"ctxplan: the memory ended, and this run cannot be planned: {refusal}"
    lines = [
        "ctxplan: the memory ended. Planned for this run: "
        f"{_gib(estimate.peak_allocated_bytes.expected)} GiB allocated at its peak ({estimate.peak_phase}, "
        f"{estimate.execution_path} path), at most {_gib(estimate.peak_allocated_bytes.upper)}; "
        f"the {gpu_name(estimate.job.gpu)} leaves {_gib(estimate.room_bytes)}: {estimate.verdict}.",
        *_seen(error, seen),
        *_where(error, estimate),
        "  the largest of what was planned: "
        + ", ".join(f"{term.name} {_gib(term.bytes)}" for term in _largest(estimate)),
    ]
    host = is_of_the_host(error)
    if host or estimate.limited_by == "host":
        ram = job.host_ram_bytes
        of = f", of {_gib(ram)}" if ram else "; host_ram_bytes, what the host has, is not known"
        lines.append(f"  host RAM planned: {_gib(estimate.host_bytes.expected)} GiB{of}")
    return "\n".join([*lines, *(_less_host_ram(job, estimate, planner) if host else _first_change(job, planner))])


def _first_change(job: Job, planner: Planner) -> list[str]:
    proposals = planner.plan(job, limit=1).proposals
    if not proposals:
        return ["  no change of this job is known to make it fit"]
    best = proposals[0]
    needs = _gib(best.standing.peak_allocated_bytes.expected)
    return [f"  change first: {_changes(best)} ({needs} GiB; ctxplan plan shows the others)"]


def _less_host_ram(job: Job, estimate: Estimate, planner: Planner) -> list[str]:
    """The first change with which the host needs less than what was planned, and was too much."""
    ended = min(job.host_ram_bytes or estimate.host_bytes.expected, estimate.host_bytes.expected) - 1
    proposals = planner.plan(replace(job, host_ram_bytes=ended)).proposals
    less = [one for one in proposals if one.host_ram_bytes < 0]
    if not less:
        return ["  no change of this job is known to need less host RAM"]
    needs = _gib(less[0].standing.host.total_bytes)
    return [f"  change first: {_changes(less[0])} ({needs} GiB of host RAM)"]


def _changes(proposal: Proposal) -> str:
    return ", ".join(f"{key}: {value}" for key, value in proposal.changes.items())


def _seen(error: BaseException, seen: Seen | None) -> list[str]:
    numbers = numbers_of(error)
    parts = []
    if numbers.tried_bytes is not None:
        parts.append(f"tried to allocate {_gib(numbers.tried_bytes)} GiB")
    if numbers.allocated_bytes is not None:
        parts.append(f"{_gib(numbers.allocated_bytes)} GiB were allocated then")
    if numbers.unallocated_bytes is not None:
        parts.append(f"{_gib(numbers.unallocated_bytes)} reserved and not in use")
    if seen is not None:
        parts.append(f"{_gib(seen.allocated_bytes)} GiB were allocated at most, {_gib(seen.reserved_bytes)} reserved")
    return [f"  seen: {'; '.join(parts)}"] if parts else []


def _where(error: BaseException, estimate: Estimate) -> list[str]:
    """The phase that the traceback tells, beside what was planned for it."""
    phase = phase_of(error)
    if phase is None:
        return []
    planned = next((one.allocated_bytes for one in estimate.phases if one.phase == phase), None)
    beside = f", for which {_gib(planned)} GiB were planned" if planned is not None else ", which was not planned"
    return [f"  it ended in the {phase} phase{beside}"]


def _does_not_fit(what: str, estimate: Estimate) -> str:
    verdict = "will not fit" if estimate.verdict == "does_not_fit" else "may not fit"
    if estimate.limited_by == "host":
        ram = _gib(estimate.job.host_ram_bytes or 0)
        return f"{what} {verdict}: {_gib(estimate.host_bytes.expected)} GiB of host RAM are expected, of {ram}"
    allocated = estimate.peak_allocated_bytes
    return (
        f"{what} {verdict}: {_gib(allocated.expected)} GiB are expected, at most {_gib(allocated.upper)}, "
        f"and the {gpu_name(estimate.job.gpu)} leaves {_gib(estimate.room_bytes)}"
    )


def _batch(estimate: Estimate, what: str) -> str:
    job = estimate.job
    if what == "the evaluation":
        return f"per_device_eval_batch_size {job.per_device_eval_batch_size}, {job.sequence_length:,} tokens"
    return f"{job.per_device_train_batch_size} x {job.sequence_length:,} tokens"


def _largest(estimate: Estimate) -> Iterable[Any]:
    return sorted(estimate.terms, key=lambda term: -term.bytes)[:LARGEST_TERMS]


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / MIB:.1f}"


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.2f}"
