"""What the card and the host have to do with it: Flex Attention, the tier that is reached, evaluation, host RAM."""

from __future__ import annotations

from collections.abc import Iterator

from app.preflight.findings import Case, Finding, gib
from ctxplan.tiers import Tier, read_evidence, target_of, tiers
from estimator import find_device, parameter_count

HUGE = 100_000_000_000
"""Parameters from which a model leaves an 80 GB card no room for attention scores, even in 4 bit."""
MUCH_HOST_RAM = 16 * 2**30
"""Host RAM that not every host with a GPU has."""


def flex_attention(case: Case) -> Iterator[Finding]:
    """``flex-attention`` and ``flex-attention-120b``: attention sinks need Flex Attention, or all scores are held."""
    if not case.trains or not case.facts.architecture.attention_sinks:
        return
    family = case.facts.architecture.model_type
    if case.job.attn_implementation != "flex_attention":
        costs = case.costs(attn_implementation="flex_attention")
        more = f", {gib(costs)} at {case.length:,} tokens" if costs and costs > 0 else ""
        message = f"{family} without Flex Attention holds the scores of every pair of tokens{more}"
        yield case.finding("flex-attention", "error", message, "attn_implementation", max(costs or 0, 0))
    elif parameter_count(case.facts.architecture) > HUGE:
        eager = case.peak_with(attn_implementation="eager")
        saved = max(eager - case.estimate.peak_allocated_bytes.expected, 0) if eager is not None else None
        less = f"{gib(saved)} less than without it" if saved else "nothing saved at this length"
        message = f"{family} of this size is planned with Flex Attention ({less}): see that the stack really uses it"
        yield case.finding("flex-attention-120b", "note", message, "attn_implementation", saved)


def tier_reached(case: Case) -> Iterator[Finding]:
    """``tier``: the longest claim for this model on this card, and whether a real run confirms it."""
    reached = [tier for tier in tiers() if _is_about(tier, case)]
    if not reached:
        return
    lengths = {tier.name: target_of(tier, case.planner).length for tier in reached}
    best = max(reached, key=lambda tier: (lengths[tier.name] >= case.length, -abs(lengths[tier.name] - case.length)))
    evidence = read_evidence(best.name)
    shown = "confirmed by a real run" if evidence and evidence.get("confirmed") else "not confirmed yet"
    length = lengths[best.name]
    beyond = "beyond it" if case.length > length else "within it"
    message = f"tier {best.name} ({shown}): {length:,} tokens on this card; {case.length:,} tokens are {beyond}"
    yield case.finding("tier", "note", message, "max_seq_length")


def _is_about(tier: Tier, case: Case) -> bool:
    """Whether a tier's run is one of this model on this card."""
    model, gpu = tier.job.model, case.job.gpu
    if not isinstance(model, str) or not isinstance(gpu, str):
        return False
    same_card = find_device(tier.job.gpu).name == find_device(gpu).name
    return same_card and case.facts.name is not None and case.planner.facts(model).name == case.facts.name


def evaluation_is_the_peak(case: Case) -> Iterator[Finding]:
    """``evaluation``: the run needs most where it evaluates, long after it has started."""
    if case.estimate.peak_phase != "evaluation":
        return
    steps = max(phase.allocated_bytes for phase in case.estimate.phases if phase.phase != "evaluation")
    costs = case.estimate.peak_allocated_bytes.expected - steps
    message = (
        f"evaluation needs {gib(costs)} more than a training step: a run that starts well may stop there; a smaller "
        "per_device_eval_batch_size costs time only"
    )
    yield case.finding("evaluation", "warning", message, "per_device_eval_batch_size", costs)


def host_ram_unchecked(case: Case) -> Iterator[Finding]:
    """``host-ram``: the host has to hold a lot, and nobody said how much it has."""
    host = case.estimate.host_bytes
    if case.job.host_ram_bytes is None and host.expected > MUCH_HOST_RAM:
        message = f"the host needs {gib(host.expected)} of RAM, which was not compared with what it has (--host-ram)"
        yield case.finding("host-ram", "warning", message, "host_ram_bytes", host.expected)


RULES = (flex_attention, tier_reached, evaluation_is_the_peak, host_ram_unchecked)
