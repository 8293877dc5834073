"""What a preflight finds beside the verdict: one rule each, with the bytes that it is about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from app.preflight.token_report import TokenReport
from app.readers import Place, Reading
from ctxplan import Planner
from ctxplan.models import ModelFacts
from estimator import Estimate, Job
from estimator.answer import HOST_MARGIN
from estimator.errors import CtxplanError

Level = Literal["error", "warning", "note"]
LONG = 32_768
"""Tokens from which a context is long: every rule about long contexts starts above it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something to know or to change.

    Attributes:
        rule: the id of the rule, as docs/rules.md explains it. bytes: GPU memory that it is about (host memory where
            the message says so); None where none is.
        key: the config's key, or the job's where the config does not set it. place: where in the config.
    """

    rule: str
    level: Level
    message: str
    place: Place
    bytes: int | None = None
    key: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "rule": self.rule,
            "level": self.level,
            "message": self.message,
            "bytes": self.bytes,
            "key": self.key,
            "line": self.place.line,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What a rule looks at.

    Attributes:
        asked: the job as it was planned, nulls and all. estimate: what came of it; its ``job`` is resolved.
    """

    reading: Reading
    asked: Job
    estimate: Estimate
    facts: ModelFacts
    tokens: TokenReport | None
    planner: Planner

    @property
    def job(self) -> Job:
        """The job with everything resolved."""
        return self.estimate.job

    @property
    def length(self) -> int:
        """Tokens of the longest sample or row."""
        return self.job.sequence_length or self.job.max_seq_length

    @property
    def trains(self) -> bool:
        return self.job.mode == "train"

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step sees at most."""
        return self.job.per_device_train_batch_size * self.job.gradient_accumulation_steps * self.length

    def peak_with(self, **changes: Any) -> int | None:
        """The expected allocated peak of the job so changed, bytes; None where it would be refused."""
        try:
            answer = self.planner.estimate(replace(self.asked, **changes), self.facts)
        except CtxplanError:
            return None
        return answer.peak_allocated_bytes.expected

    def costs(self, **instead: Any) -> int | None:
        """The bytes that the job takes more than the same with these settings; None where those would be refused."""
        other = self.peak_with(**instead)
        return None if other is None else self.estimate.peak_allocated_bytes.expected - other

    def finding(self, rule: str, level: Level, message: str, job_key: str, size_bytes: int | None = None) -> Finding:
        """A finding about a key of the job, shown where the config sets it."""
        source = self.reading.sources.get(job_key)
        return Finding(
            rule=rule,
            level=level,
            message=message,
            bytes=size_bytes,
            key=source.key if source else job_key,
            place=self.reading.place(job_key),
        )


def needs(estimate: Estimate) -> str:
    """What is needed of what there is, for a person: of the host's RAM where that is what limits."""
    ram = estimate.job.host_ram_bytes
    if estimate.limited_by == "host" and ram is not None:
        host = estimate.host_bytes.expected
        return f"{gib(host)} of host RAM needed, at most {gib(int(host * (1 + HOST_MARGIN)))}, of {gib(ram)}"
    needed = estimate.needed_bytes
    return f"{gib(needed.expected)} needed, at most {gib(needed.upper)}, of {gib(estimate.room_bytes)}"


Rule = Callable[[Case], Iterator[Finding]]
"""Yields what it finds; most cases give nothing."""


def gib(size_bytes: int) -> str:
    """Bytes for a person."""
    return f"{size_bytes / 2**30:,.2f} GiB"
