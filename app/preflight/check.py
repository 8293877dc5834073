"""A preflight: the config's job planned on its card, weighed against what is not sure, with what the rules find."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from app.preflight.findings import Case, Finding
from app.preflight.phases import PhasePeak, phases_of
from app.preflight.question import Question, at_config, job_of, model_of
from app.preflight.rules import findings
from app.readers import Doubt, Reading
from app.readers.writing import Written, written
from ctxplan import Planner
from ctxplan.models import ModelFacts
from estimator import Estimate, Job, MaxContext, job_to_json
from estimator.advise import Proposal
from estimator.advise.answer import plain
from estimator.advise.plan import MOST_ASKED
from estimator.errors import CtxplanError
from estimator.estimate import Verdict

FITS, DOES_NOT_FIT, UNCERTAIN = 0, 1, 3
MOST_SUGGESTIONS = 3
EXIT_CODES = {"fits": FITS, "does_not_fit": DOES_NOT_FIT, "uncertain": UNCERTAIN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A proposal, and how its changes read in the config's own keys."""

    proposal: Proposal
    written: Written

    def to_json(self) -> dict[str, Any]:
        return {
            **self.proposal.to_json(),
            "config_changes": dict(self.written.config),
            "environment": dict(self.written.environment),
            "not_in_config": list(self.written.missing),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """The answer.

    Attributes:
        verdict: the estimate's, or ``uncertain`` where a setting that is not modelled could turn it (``unsure``).
        suggestions: what makes it fit, where it does not certainly fit as it is: what the config can say before what it
            cannot, and of each the best first.
        longest: how long a context this job could have; None where the job generates.
    """

    question: Question
    verdict: Verdict
    unsure: tuple[Doubt, ...]
    estimate: Estimate
    phases: tuple[PhasePeak, ...]
    findings: tuple[Finding, ...]
    longest: MaxContext | None
    suggestions: tuple[Suggestion, ...]
    tokens_per_step: int
    assumptions: tuple[str, ...]

    @property
    def reading(self) -> Reading:
        return self.question.reading

    @property
    def fails_by_finding(self) -> bool:
        """Whether a finding of level ``error`` fails the run, as ``strict`` has it."""
        return self.question.strict and any(finding.level == "error" for finding in self.findings)

    @property
    def exit_code(self) -> int:
        """0 fits, 1 does not fit, 3 uncertain; an uncertain one passes where only ``does_not_fit`` is to fail."""
        if self.fails_by_finding:
            return DOES_NOT_FIT
        if self.verdict == "uncertain" and self.question.fail_on == "does_not_fit":
            return FITS
        return EXIT_CODES[self.verdict]

    def to_json(self) -> dict[str, Any]:
        """The answer as plain JSON values."""
        estimate, reading = self.estimate, self.reading
        return {
            "verdict": self.verdict,
            "exit_code": self.exit_code,
            "confidence": estimate.confidence,
            "limited_by": estimate.limited_by,
            "needed_bytes": estimate.needed_bytes.to_json(),
            "room_bytes": estimate.room_bytes,
            "host_bytes": estimate.host_bytes._asdict(),
            "phases": [phase.to_json() for phase in self.phases],
            "findings": [finding.to_json() for finding in self.findings],
            "suggestions": [suggestion.to_json() for suggestion in self.suggestions],
            "doubts": [doubt.to_json() for doubt in reading.doubts],
            "unsure_because": [doubt.key for doubt in self.unsure],
            "max_seq_length": {"expected": self.longest.expected, "safe": self.longest.safe} if self.longest else None,
            "tokens_per_step": self.tokens_per_step,
            "tokens": self.question.tokens.to_json() if self.question.tokens else None,
            "config": {"file": reading.file, "tool": reading.tool, "versions": dict(reading.versions)},
            "assumptions": list(self.assumptions),
            "asked": {key: value for key, value in reading.job.items() if value is not None},
            "job": job_to_json(estimate.job),
            "estimate": estimate.to_json(),
        }


def check(question: Question, planner: Planner, facts: ModelFacts | None = None) -> Preflight:
    """Answer a preflight.

    Args:
        facts: the model's, where the caller has looked it up.

    Raises:
        CtxplanError: the job cannot be planned; a ``ConfigError`` where a key of the config is at fault.
    """
    reading = question.reading
    try:
        facts = facts or planner.facts(model_of(question))
        job, notes = job_of(question, facts)
        estimate = planner.estimate(job, facts)
    except CtxplanError as error:
        raise at_config(error, reading) from None
    case = Case(reading=reading, asked=job, estimate=estimate, facts=facts, tokens=question.tokens, planner=planner)
    verdict, unsure = _weighed(estimate, reading)
    return Preflight(
        question=question,
        verdict=verdict,
        unsure=unsure,
        estimate=estimate,
        phases=phases_of(case),
        findings=tuple(findings(case)),
        longest=_longest(job, facts, planner),
        suggestions=_suggestions(estimate, case),
        tokens_per_step=case.tokens_per_step,
        assumptions=(*reading.assumptions, *notes, *_doubts_in_words(reading), *estimate.assumptions),
    )


def _longest(job: Job, facts: ModelFacts, planner: Planner) -> MaxContext | None:
    return planner.max_context(job, facts) if job.mode == "train" else None


def _suggestions(estimate: Estimate, case: Case) -> tuple[Suggestion, ...]:
    if estimate.verdict == "fits" or not case.trains:
        return ()
    found = []
    for proposal in case.planner.plan(case.asked, case.facts, limit=MOST_ASKED).proposals:
        told = written(case.reading.tool, plain(proposal.changes), job_to_json(proposal.job))
        if told is not None:
            found.append(Suggestion(proposal=proposal, written=told))
    return tuple(sorted(found, key=lambda one: bool(one.written.missing))[:MOST_SUGGESTIONS])


def _weighed(estimate: Estimate, reading: Reading) -> tuple[Verdict, tuple[Doubt, ...]]:
    """The verdict, and the doubts that make it uncertain: what needs more unsettles one that the job fits, what needs
    less one that it does not, where all of them together could save enough."""
    unsettling = {"fits": ("more", "either"), "does_not_fit": ("less", "either")}.get(estimate.verdict, ())
    doubts = tuple(doubt for doubt in reading.doubts if doubt.effect in unsettling)
    if estimate.verdict == "does_not_fit":
        if not reading.full_logits and _fits_without_logits(estimate):
            return "uncertain", doubts
        doubts = doubts if _could_save_enough(estimate, doubts) else ()
    return ("uncertain", doubts) if doubts else (estimate.verdict, ())


def _could_save_enough(estimate: Estimate, doubts: tuple[Doubt, ...]) -> bool:
    left = prod(1 - doubt.most for doubt in doubts)
    return estimate.limited_by == "host" or estimate.needed_bytes.expected * left <= estimate.room_bytes


def _fits_without_logits(estimate: Estimate) -> bool:
    """Whether what is alive at the peak beside the logits would fit; where it would not, no other loss helps."""
    logits = sum(term.bytes for term in estimate.terms if term.name.startswith("logits"))
    return (
        bool(logits) and estimate.limited_by == "gpu" and estimate.needed_bytes.expected - logits <= estimate.room_bytes
    )


def _doubts_in_words(reading: Reading) -> list[str]:
    return [f"not modelled: {doubt.key}: {doubt.message}" for doubt in reading.doubts]
