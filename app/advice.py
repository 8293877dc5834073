"""The answer of ``POST /v1/plans``, as the OpenAPI document states it; `estimator.advise` writes its bytes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from app.schemas import Bytes, Count, HostBytes, ResolvedJob

Verdict = Literal["fits", "does_not_fit", "uncertain"]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SafeLength(_Answer):
    """Tokens; 0 where not even one is safe."""

    safe: Count


class Standing(_Answer):
    """How a job stands: its peak, its verdict, and the longest context that is safe with its settings."""

    peak_allocated_bytes: Bytes
    verdict: Verdict
    limited_by: str
    evidence: Literal["inside", "outside"]
    max_seq_length: SafeLength
    host_bytes: HostBytes


class Price(_Answer):
    """What changes cost: points on four scales, the rank that they make together, and the words."""

    order: Count
    hardware: Count
    quality: Count
    effort: Count
    speed: Count
    host_ram_bytes: int
    words: list[str]


class Proposal(Standing):
    """Changes of a job, and how it stands with them. ``job`` is the changed job, ready to be asked about."""

    goal: Literal["fit", "context", "batch"]
    changes: dict[str, Any]
    price: Price
    code: list[str]
    job: ResolvedJob


class PlanAnswer(Standing):
    """A job as it is, and what to change in it, best first."""

    best_verdict: Verdict
    proposals: list[Proposal]
    trainer: Literal["sft", "loop"]
    simulated: Count
    assumptions: list[str]
    job: ResolvedJob
