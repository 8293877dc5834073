"""The answer: a job as it is, and what to change in it, best first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from estimator.advise.options import Option
from estimator.advise.prices import Price
from estimator.estimate import Bytes, Verdict
from estimator.host import HostPlan
from estimator.job import Job, job_to_json
from estimator.resolve import Trainer

Goal = Literal["fit", "context", "batch"]
"""What a change is for: that the job fits as long as it was asked, a longer context, or a larger batch."""


class Standing(NamedTuple):
    """How a job stands: its peak, its verdict, and the longest context that is safe with its settings.

    Attributes:
        longest: tokens, as ``max_context`` says it; 0 where not even one is safe. inside: whether the measured range
            covers it.
    """

    peak_allocated_bytes: Bytes
    host: HostPlan
    verdict: Verdict
    limited_by: str
    longest: int
    inside: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "peak_allocated_bytes": self.peak_allocated_bytes.to_json(),
            "verdict": self.verdict,
            "limited_by": self.limited_by,
            "evidence": "inside" if self.inside else "outside",
            "max_seq_length": {"safe": self.longest},
            "host_bytes": {
                "expected": self.host.total_bytes,
                "pinned": self.host.pinned_bytes,
                "pageable": self.host.pageable_bytes,
            },
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Changes of a job, and how it stands with them.

    Attributes:
        changes: keys of the job with their new values: the job as asked with these estimates to exactly ``standing``.
        options: the single changes that they are made of, with what each costs.
        host_ram_bytes: host RAM beyond the job's own, negative where some is saved.
        code: how the changes read in a training script, one line a call.
        job: the changed job, resolved.
    """

    goal: Goal
    changes: Mapping[str, Any]
    options: tuple[Option, ...]
    price: Price
    standing: Standing
    host_ram_bytes: int
    code: tuple[str, ...]
    job: Job

    def to_json(self) -> dict[str, Any]:
        """The proposal in plain JSON values."""
        return {
            "goal": self.goal,
            "changes": plain(self.changes),
            "price": {
                "order": self.price.order,
                **self.price._asdict(),
                "host_ram_bytes": self.host_ram_bytes,
                "words": [option.words for option in self.options],
            },
            **self.standing.to_json(),
            "code": list(self.code),
            "job": job_to_json(self.job),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """A job as it is, and proposals in order of their price.

    Attributes:
        trainer: what the proposals are priced for. simulated: changed jobs that were looked at.
    """

    standing: Standing
    proposals: tuple[Proposal, ...]
    trainer: Trainer
    simulated: int
    assumptions: tuple[str, ...]
    job: Job

    @property
    def best_verdict(self) -> Verdict:
        """The best that the job reaches, as it is or with a change."""
        verdicts = {self.standing.verdict, *(proposal.standing.verdict for proposal in self.proposals)}
        return "fits" if "fits" in verdicts else "uncertain" if "uncertain" in verdicts else "does_not_fit"

    def to_json(self) -> dict[str, Any]:
        """The advice as the contract writes it, in plain JSON values."""
        return {
            **self.standing.to_json(),
            "best_verdict": self.best_verdict,
            "proposals": [proposal.to_json() for proposal in self.proposals],
            "trainer": self.trainer,
            "simulated": self.simulated,
            "assumptions": list(self.assumptions),
            "job": job_to_json(self.job),
        }


def plain(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes in JSON values."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in changes.items()}
