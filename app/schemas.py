"""The answers, as the OpenAPI document states them. The bytes themselves are written by the estimator's
``to_json``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from estimator.job import job_schema

JOB_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Job"}}},
    }
}
"""``openapi_extra`` of a route whose body is a job (see `app.dependencies.JobBody`)."""


def resolved_job_schema() -> dict[str, Any]:
    """The job in an answer: every key is there, and what the stack would choose has been chosen."""
    schema = job_schema()
    properties = {key: {k: v for k, v in rule.items() if k != "default"} for key, rule in schema["properties"].items()}
    return {**schema, "title": "ResolvedJob", "properties": properties, "required": list(properties)}


Count = Annotated[int, Field(ge=0)]
ResolvedJob = Annotated[dict[str, Any], WithJsonSchema(resolved_job_schema())]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Bytes(_Answer):
    """An expected number of bytes, and the bound that holds at the asked confidence."""

    expected: Count
    upper: Count


class HostBytes(_Answer):
    """Host RAM, in bytes."""

    expected: Count
    pinned: Count
    pageable: Count


class Phase(_Answer):
    """The largest sum of live bytes in one part of the run."""

    phase: str
    allocated_bytes: Count


class Term(_Answer):
    """Some bytes alive at the peak, by name, with how they follow from the job and where that was read."""

    name: str
    bytes: int
    formula: str
    source: str


class EstimateAnswer(_Answer):
    """What a job needs. The terms sum to ``peak_allocated_bytes.expected`` exactly."""

    peak_allocated_bytes: Bytes
    peak_reserved_bytes: Bytes
    peak_device_bytes: Bytes
    host_bytes: HostBytes
    usable_bytes: Count
    needed_bytes: Bytes
    room_bytes: int
    peak_phase: str
    phases: list[Phase]
    terms: list[Term]
    execution_path: str
    verdict: Literal["fits", "does_not_fit", "uncertain"]
    confidence: float
    limited_by: str
    calibration: dict[str, Any]
    evidence: Literal["inside", "outside"]
    rope: dict[str, Any]
    regime: dict[str, Any]
    assumptions: list[str]
    job: ResolvedJob


class Lengths(_Answer):
    """Tokens; 0 where not even one fits."""

    expected: Count
    safe: Count


class LengthRange(_Answer):
    """Lengths from ``first`` to ``last``, both included."""

    first: Count
    last: Count


class MaxContextAnswer(_Answer):
    """The longest context of a job, the shorter lengths that do not fit, and the estimate at the safe
    length."""

    max_seq_length: Lengths
    limited_by: str
    does_not_fit: list[LengthRange]
    not_safe: list[LengthRange]
    at_safe: EstimateAnswer | None
    assumptions: list[str]
    job: ResolvedJob


class ScriptAnswer(_Answer):
    """A Python script that runs the job with Unsloth (or with plain transformers, where the job says so)."""

    filename: str
    script: str


class Gpu(_Answer):
    """A GPU kind. ``usable_bytes`` is the total less what CUDA and PyTorch take before the first tensor."""

    name: str
    total_bytes: Count
    usable_bytes: Count
    compute_capability: str
    measured: bool
    aliases: list[str]
    source: str


class Gpus(_Answer):
    """The GPU catalogue, in one page."""

    items: list[Gpu]
    next: None


class Model(_Answer):
    """A model that is known without asking the Hub; its aliases are all other names it answers to."""

    id: str
    family: str
    parameters: Count
    native_length: Count
    aliases: list[str]


class Models(_Answer):
    """The model catalogue, in one page."""

    items: list[Model]
    next: None


class TierMeasured(_Answer):
    """The run that a tier's evidence is of. ``reason``: why it does not confirm the tier."""

    sequence_length: Count | None
    emulated: bool
    gpu: str | None
    num_hidden_layers: Count | None
    peak_allocated_bytes: Count | None
    measured_at: str | None
    reason: str | None


class TierListing(_Answer):
    """A claim: a job at a length, and whether a real run on a real card confirms it."""

    name: str
    claim: str
    source: str
    sequence_length: Count
    limited_by: str | None
    job: dict[str, Any]
    confirmed: bool
    measured: TierMeasured | None


class Tiers(_Answer):
    """Every tier, in one page."""

    items: list[TierListing]
    next: None


class TierAnswer(TierListing):
    """A tier with its evidence, as ``ctxplan tier confirm`` wrote it."""

    evidence: dict[str, Any] | None


class Health(_Answer):
    """The process answers."""

    status: Literal["ok"]
    version: str


class Readiness(_Answer):
    """The catalogue is loaded and an estimate was made."""

    status: Literal["ready"]
    models: Count
    gpus: Count
    calibration: dict[str, Any]


class ProblemKind(_Answer):
    """What a problem's ``type`` means."""

    code: str
    status: int
    title: str
    explanation: str
