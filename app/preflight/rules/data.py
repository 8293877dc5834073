"""Whether the data has the long samples that a long context is paid for, and whether a step sees enough of them."""

from __future__ import annotations

from collections.abc import Iterator

from app.preflight.findings import LONG, Case, Finding, gib

SEQUENCES_PER_STEP = 8
"""Long sequences that one optimizer step should see. Published recipes for long contexts take 64 (Chen et al. 2023,
"LongLoRA"; Peng et al. 2023, "YaRN"), spread over 8 GPUs: 8 on each. With one, every step follows one document."""


def nobody_looked_at_the_data(case: Case) -> Iterator[Finding]:
    """``data-unknown``: a long context without a report of the data's lengths."""
    if case.trains and case.tokens is None and case.job.max_seq_length > LONG:
        message = (
            f"nobody has looked whether the data has samples for {case.job.max_seq_length:,} tokens: "
            "ctxplan tokens does, and --tokens-report takes its answer"
        )
        yield case.finding("data-unknown", "note", message, "max_seq_length")


def no_long_samples(case: Case) -> Iterator[Finding]:
    """``no-long-samples``: 99 % of the samples have less than half of the length that is paid for."""
    tokens, asked = case.tokens, case.job.max_seq_length
    if tokens is None or asked <= LONG or 2 * tokens.p99 >= asked:
        return
    shorter = max(2 * tokens.p99, 1)
    saved = case.costs(max_seq_length=min(shorter, asked), sequence_length=min(shorter, case.length))
    what = f", {gib(saved)} less" if saved and saved > 0 else ""
    message = (
        f"99 % of the samples have at most {tokens.p99:,} tokens: there is little long-range to learn at {asked:,}, "
        f"and twice that, {shorter:,}, would do{what}"
    )
    yield case.finding(
        "no-long-samples", "warning", message, "max_seq_length", max(saved, 0) if saved is not None else None
    )


def samples_are_cut(case: Case) -> Iterator[Finding]:
    """``samples-cut``: some samples are longer than what the model is loaded for."""
    tokens, asked = case.tokens, case.job.max_seq_length
    if tokens is None or tokens.longest <= asked:
        return
    share = "more than half" if tokens.p50 > asked else "more than 1 %" if tokens.p99 > asked else "up to 1 %"
    longer = case.peak_with(max_seq_length=tokens.longest, sequence_length=None)
    costs = longer - case.estimate.peak_allocated_bytes.expected if longer is not None else None
    price = f", which would take {gib(costs)} more" if costs and costs > 0 else ""
    message = (
        f"{share} of the samples are longer than {asked:,} tokens and are cut; "
        f"the longest has {tokens.longest:,}{price}"
    )
    yield case.finding("samples-cut", "warning", message, "max_seq_length", costs)


def few_sequences_a_step(case: Case) -> Iterator[Finding]:
    """``tokens-per-step``: an optimizer step of a long context sees few sequences."""
    batch, accumulated = case.job.per_device_train_batch_size, case.job.gradient_accumulation_steps
    if not case.trains or case.length <= LONG or batch * accumulated >= SEQUENCES_PER_STEP:
        return
    better, seen = -(-SEQUENCES_PER_STEP // batch), batch * accumulated
    sees = f"{seen} sequences" if seen > 1 else "1 sequence"
    together = f", {case.tokens_per_step:,} in all," if seen > 1 else ""
    message = (
        f"a step sees {sees} of {case.length:,} tokens{together} and learns "
        f"little of long ranges steadily; gradient_accumulation_steps {better} costs no memory and makes it "
        f"{batch * better * case.length:,} tokens"
    )
    yield case.finding("tokens-per-step", "warning", message, "gradient_accumulation_steps", 0)


RULES = (nobody_looked_at_the_data, no_long_samples, samples_are_cut, few_sequences_a_step)
