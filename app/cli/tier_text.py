"""A tier for a person: the claim's job in words, its length, and the run beside the estimate of the same job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ctxplan import Planner
from ctxplan.naming import gpu_name
from ctxplan.tiers import Target, Tier, cards_not_run, range_end, target_of
from estimator import Estimate, Job, parse_job

GIB = 2**30
PACKAGES = ("torch", "transformers", "unsloth", "unsloth_zoo", "bitsandbytes", "trl", "peft", "driver")
"""Of the stack, those on which memory depends."""


def tier_text(tier: Tier, evidence: Mapping[str, Any] | None, planner: Planner) -> str:
    """The whole tier. Raises CtxplanError where its length cannot be planned."""
    target = target_of(tier, planner)
    lines = [tier.claim, f"source: {tier.source}", f"job: {job_in_words(target.job)}"]
    lines += _length(tier, target)
    if evidence:
        lines += run_lines(evidence, planner)
    others = cards_not_run(tier, evidence)
    if others:
        lines.append(f"not measured: {', '.join(others)}, which the claim is about as well")
    return "\n".join(f"  {line}" for line in lines)


def job_in_words(job: Job) -> str:
    """What is trained, how, and on what."""
    weights = next((bits for bits in ("4bit", "8bit", "16bit", "fp8") if getattr(job, f"load_in_{bits}")), "16bit")
    targets = job.target_modules
    where = targets if isinstance(targets, str) else f"{len(targets)} projections"
    trains = "full fine-tuning" if job.full_finetuning else f"LoRA of rank {job.r} on {where}"
    pinned = {None: "", True: ", host memory pinned", False: ", host memory not pinned"}[job.pin_host_memory]
    gpu = gpu_name(job.gpu)
    length = job.sequence_length or job.max_seq_length
    return (
        f"{job.model} in {weights}, {trains}, {job.per_device_train_batch_size} x {length:,} tokens, "
        f"use_gradient_checkpointing {job.use_gradient_checkpointing}, {job.optim}{pinned}, on one {gpu}"
    )


def run_lines(evidence: Mapping[str, Any], planner: Planner) -> Iterator[str]:
    """The run that counts, each number beside its estimate; the file's own words where nothing was measured."""
    if evidence.get("peak_allocated_bytes") is None:
        return
    answer = planner.estimate(parse_job(evidence["job"]))
    steps = evidence["steps"]
    seconds = " and ".join(f"{step['seconds']:.0f}" for step in steps if step["seconds"] is not None)
    losses = " and ".join(f"{step['loss']:.2f}" for step in steps if step["loss"] is not None)
    yield (
        f"ran: {evidence['sequence_length']:,} tokens, {evidence['num_hidden_layers']} layers, path "
        f"{evidence['execution_path']}, {len(steps)} steps of {seconds} s, loss {losses}, {evidence['measured_at']}"
    )
    yield from _peaks(evidence, answer)
    yield from _host(evidence.get("host") or {}, answer)
    yield from _retries(evidence["measurements"])
    stack = evidence.get("stack") or {}
    yield "stack: " + ", ".join(f"{name} {stack[name]}" for name in PACKAGES if stack.get(name))


def _length(tier: Tier, target: Target) -> Iterator[str]:
    """Where a planned length is from."""
    if target.planned is None or tier.below is None:
        return
    planned = target.planned
    end = range_end(planned, tier.below)
    yield f"length: {target.length:,} tokens, {100 * tier.below:g} % below {end:,}, by the estimate of today"
    if end != planned.expected:
        gaps = ", ".join(f"{first:,} to {last:,}" for first, last in planned.does_not_fit)
        yield f"  {end:,} is the end of the lengths below a gap, {gaps}, that does not fit"
        yield f"  (the longest that is expected to fit is {planned.expected:,}, limited by the {planned.limited_by})"


def _peaks(evidence: Mapping[str, Any], answer: Estimate) -> Iterator[str]:
    """Allocated, reserved and device bytes."""
    for name, when, key, bound in (
        ("allocated", "at the peak", "peak_allocated_bytes", answer.peak_allocated_bytes),
        ("reserved", "at most", "peak_reserved_bytes", answer.peak_reserved_bytes),
        ("device", "after the last step", "device_used_bytes", answer.peak_device_bytes),
    ):
        measured = evidence.get(key)
        if measured:
            off = round(100 * (bound.expected / measured - 1), 2) or 0.0  # no minus before a zero
            planned = f"estimated {_gib(bound.expected)} ({off:+.2f} %), bound {_gib(bound.upper)}"
            yield f"{name}: {_gib(measured)} GiB {when}, {planned}"
    yield f"verdict of the estimate: {answer.verdict}"


def _host(host: Mapping[str, Any], answer: Estimate) -> Iterator[str]:
    planned = answer.host_bytes
    if host.get("rss_bytes"):
        yield f"host: {_gib(host['rss_bytes'])} GiB resident, estimated {_gib(planned.expected)}"
    if host.get("pinned_reserved_bytes"):
        yield f"  {_gib(host['pinned_reserved_bytes'])} GiB of it pinned, estimated {_gib(planned.pinned)}"


def _retries(measurements: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Whether the card was full."""
    retries = ((measurements[-1].get("allocator") or {}) if measurements else {}).get("retries")
    if retries:
        yield f"allocator: {retries} retries: the card was full, and torch gave memory back to go on, which costs time"
    elif retries == 0:
        yield "allocator: no retries"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"
