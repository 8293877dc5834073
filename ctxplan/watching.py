"""What to say of a run while it runs: the plan beside what is seen, before the memory ends and when it has.

Nothing of torch or transformers is needed here: what was seen comes as numbers and text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from ctxplan.planning import Planner
from estimator import CtxplanError, Estimate, Job

GIB = 2**30
LARGEST_TERMS = 5
OUT_OF_MEMORY = "OutOfMemoryError"
TRIED = re.compile(r"[Tt]ried to allocate ([0-9.]+) ([KMG]iB)")
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


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
    """

    typical: Estimate
    longest: Estimate | None = None
    evaluation: Estimate | None = None


def plan_run(job: Job, planner: Planner, *, longest_tokens: int | None = None) -> RunPlan:
    """Plan a run's steps, its longest sample and its evaluation.

    Args:
        longest_tokens: tokens of the longest sample that is not cut.

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
    return RunPlan(typical=typical, longest=longest, evaluation=evaluation)


def before_the_run(plan: RunPlan) -> list[str]:
    """Warnings that the plan alone gives, a sentence each."""
    said = []
    for what, estimate in (
        ("the longest sample", plan.longest or plan.typical),
        ("the evaluation", plan.evaluation),
    ):
        if estimate is not None and estimate.verdict != "fits":
            said.append(_does_not_fit(f"{what} ({_batch(estimate, what)})", estimate))
    return said


def after_a_step(plan: RunPlan, seen: Seen, step: int) -> list[str]:
    """Warnings that one of the first steps gives: more than planned, and what that means for what is still to come."""
    bound = plan.typical.peak_allocated_bytes
    if seen.allocated_bytes <= bound.upper:
        return []
    more = seen.allocated_bytes - bound.expected
    said = [
        f"step {step} took {_gib(seen.allocated_bytes)} GiB, {_gib(more)} more than was planned for "
        f"{plan.typical.job.sequence_length:,} tokens (bound {_gib(bound.upper)} GiB)"
    ]
    for what, estimate in (("the longest sample", plan.longest), ("the evaluation", plan.evaluation)):
        if estimate is not None and estimate.peak_allocated_bytes.expected + more > estimate.room_bytes:
            needs = _gib(estimate.peak_allocated_bytes.expected + more)
            said.append(f"with as much more, {what} needs {needs} GiB of {_gib(estimate.room_bytes)}: it will not fit")
    return said


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the GPU's or the host's memory ended; torch's error is known by its name."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return OUT_OF_MEMORY in names or isinstance(error, MemoryError) or "out of memory" in str(error).lower()


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
        f"the {_card(estimate.job)} leaves {_gib(estimate.room_bytes)}: {estimate.verdict}.",
        *_seen(error, seen),
        "  the largest of what was planned: "
        + ", ".join(f"{term.name} {_gib(term.bytes)}" for term in _largest(estimate)),
    ]
    if isinstance(error, MemoryError):
        lines.append(f"  host RAM planned: {_gib(estimate.host_bytes.expected)} GiB")
    return "\n".join([*lines, *_first_change(job, planner)])


def _first_change(job: Job, planner: Planner) -> list[str]:
    proposals = planner.plan(job, limit=1).proposals
    if not proposals:
        return ["  no change of this job is known to make it fit"]
    best = proposals[0]
    changes = ", ".join(f"{key}: {value}" for key, value in best.changes.items())
    needs = _gib(best.standing.peak_allocated_bytes.expected)
    return [f"  change first: {changes} ({needs} GiB; ctxplan plan shows the others)"]


def _seen(error: BaseException, seen: Seen | None) -> list[str]:
    tried = TRIED.search(str(error))
    parts = [f"tried to allocate {tried[1]} {tried[2]}"] if tried else []
    if seen is not None:
        parts.append(f"{_gib(seen.allocated_bytes)} GiB were allocated at most, {_gib(seen.reserved_bytes)} reserved")
    return [f"  seen: {'; '.join(parts)}"] if parts else []


def _does_not_fit(what: str, estimate: Estimate) -> str:
    verdict = "will not fit" if estimate.verdict == "does_not_fit" else "may not fit"
    if estimate.limited_by == "host":
        ram = _gib(estimate.job.host_ram_bytes or 0)
        return f"{what} {verdict}: {_gib(estimate.host_bytes.expected)} GiB of host RAM are expected, of {ram}"
    allocated = estimate.peak_allocated_bytes
    return (
        f"{what} {verdict}: {_gib(allocated.expected)} GiB are expected, at most {_gib(allocated.upper)}, "
        f"and the {_card(estimate.job)} leaves {_gib(estimate.room_bytes)}"
    )


def _batch(estimate: Estimate, what: str) -> str:
    job = estimate.job
    if what == "the evaluation":
        return f"per_device_eval_batch_size {job.per_device_eval_batch_size}, {job.sequence_length:,} tokens"
    return f"{job.per_device_train_batch_size} x {job.sequence_length:,} tokens"


def _largest(estimate: Estimate) -> Iterable[Any]:
    return sorted(estimate.terms, key=lambda term: -term.bytes)[:LARGEST_TERMS]


def _card(job: Job) -> str:
    return job.gpu if isinstance(job.gpu, str) else str(job.gpu["name"])


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.2f}"
