"""The answer of a preflight, as the OpenAPI document states it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from app.advice import Proposal
from app.preflight.request import request_schema
from app.schemas import Bytes, Count, EstimateAnswer, HostBytes, Lengths, ResolvedJob

PREFLIGHT_BODY: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": request_schema()}}}
}
"""``openapi_extra`` of the route."""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class PhasePeak(_Answer):
    """The largest sum of live bytes in a part of the run."""

    phase: str
    allocated_bytes: Count
    sequence_length: Count | None
    host_bytes: Count | None


class Finding(_Answer):
    """Something to know or to change; ``rule`` is stable, and docs/rules.md explains it."""

    rule: str
    level: Literal["error", "warning", "note"]
    message: str
    bytes: int | None
    key: str | None
    line: Count | None


class Doubt(_Answer):
    """A setting of the config that matters for memory and is not modelled."""

    key: str
    message: str
    effect: Literal["more", "less", "either"]
    line: Count | None


class Suggestion(Proposal):
    """A proposal, and how its changes read for the tool: keys of its config, variables to set before the start, and
    keys of the job that none of its settings changes."""

    config_changes: dict[str, Any]
    environment: dict[str, str]
    not_in_config: list[str]


class DataLengths(_Answer):
    """How long the samples are, in tokens."""

    documents: Count
    tokens: Count
    p50: Count
    p99: Count
    longest: Count


class ConfigRead(_Answer):
    """Which tool's config it was taken as, and the releases whose defaults were assumed."""

    file: str
    tool: str
    versions: dict[str, str]


class PreflightAnswer(_Answer):
    """Whether the config's job fits. ``exit_code`` is the command line's; ``asked`` is what the config sets."""

    verdict: Literal["fits", "does_not_fit", "uncertain"]
    exit_code: Literal[0, 1, 3]
    confidence: float
    limited_by: str
    needed_bytes: Bytes
    room_bytes: int
    host_bytes: HostBytes
    phases: list[PhasePeak]
    findings: list[Finding]
    suggestions: list[Suggestion]
    doubts: list[Doubt]
    unsure_because: list[str]
    max_seq_length: Lengths | None
    tokens_per_step: Count
    tokens: DataLengths | None
    config: ConfigRead
    assumptions: list[str]
    asked: dict[str, Any]
    job: ResolvedJob
    estimate: EstimateAnswer
