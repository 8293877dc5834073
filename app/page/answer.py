"""Everything that the planner's page says of one job, computed at once and in one thread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from app.page.bar import Bar, bar_of
from app.page.beyond import evidence_of
from app.page.cards import CardRow, cards_of
from app.page.changes import Changes, changes_of
from app.page.copies import Copy, copies_of
from app.page.curve import Curve, curve_of
from app.page.curve_drawing import Drawing, draw
from app.page.query import plain_values, query_of_job
from app.page.terms import Symbol, symbols_of
from app.tiers import listed as tiers
from ctxplan import Planner
from ctxplan.models import ModelFacts
from estimator import Estimate, Job, MaxContext, job_to_json

DECISIVE = (
    "model",
    "gpu",
    "per_device_train_batch_size",
    "load_in_4bit",
    "r",
    "target_modules",
    "use_gradient_checkpointing",
    "optim",
    "unsloth_tiled_mlp",
    "packing",
    "framework",
    "mode",
)
"""The keys in which a job is a tier's own run, beside its length; a tier's job states them all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A job and what is said of it. ``tier``: the confirmed run of exactly this job, as `app.tiers` lists it."""

    asked: Job
    query: str
    facts: ModelFacts
    estimate: Estimate
    longest: MaxContext
    bar: Bar
    curve: Curve
    drawing: Drawing
    symbols: tuple[Symbol, ...]
    copies: tuple[Copy, ...]
    tier: dict[str, Any] | None

    def to_json(self) -> dict[str, Any]:
        """The same for a program: the estimate, the longest context, the curve, and the texts to copy."""
        return {
            "job": plain_values(self.asked),
            "query": self.query,
            "estimate": self.estimate.to_json(),
            "max_context": self.longest.to_json(),
            "curve": {
                "points": [point._asdict() for point in self.curve.points],
                "cards": [{"gpu": line.gpu, "room_bytes": line.room_bytes} for line in self.curve.cards],
            },
            "copies": {copy.key: copy.text for copy in self.copies},
            "tier": self.tier["name"] if self.tier else None,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class More:
    """What takes longer than an answer may: other cards, and what to change."""

    cards: tuple[CardRow, ...]
    changes: Changes

    def to_json(self) -> dict[str, Any]:
        return {"cards": [row.to_json() for row in self.cards], "plan": self.changes.advice.to_json()}


def answer_of(job: Job, planner: Planner, facts: ModelFacts, *, address: str) -> Answer:
    """Answer a job. Raises CtxplanError where it cannot be planned."""
    estimate = planner.estimate(job, facts)
    longest = planner.max_context(job, facts)
    curve = curve_of(job, estimate, longest, planner, facts)
    length = estimate.job.sequence_length or estimate.job.max_seq_length
    return Answer(
        asked=job,
        query=query_of_job(job),
        facts=facts,
        estimate=estimate,
        longest=longest,
        bar=bar_of(estimate, evidence_of(job, planner, facts)),
        curve=curve,
        drawing=draw(curve, longest, length),
        symbols=symbols_of(facts.architecture, estimate.job),
        copies=copies_of(job, estimate, facts, address),
        tier=_tier_of(estimate),
    )


def more_of(job: Job, planner: Planner, facts: ModelFacts) -> More:
    """The parts of a page that come after. Raises CtxplanError."""
    return More(cards=cards_of(job, planner, facts), changes=changes_of(job, planner, facts))


def _tier_of(estimate: Estimate) -> dict[str, Any] | None:
    """The confirmed tier whose run was this job, whatever was left to the stack in either."""
    job = job_to_json(estimate.job)
    length = estimate.job.sequence_length or estimate.job.max_seq_length
    runs = (tier for tier in tiers() if tier["confirmed"] and tier["measured"]["sequence_length"] == length)
    same = (tier for tier in runs if all(tier["job"][key] == job[key] for key in DECISIVE))
    return next(same, None)
