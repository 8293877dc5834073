"""The answers of the service that have no class of ctxplan's own, key for key as its OpenAPI document states them.

What a job needs and how long it can be come as `estimator.Estimate` and `estimator.MaxContext`: see
`ctxplan.client.reading`.
"""

from __future__ import annotations

from typing import Any, Literal, TypedDict

Verdict = Literal["fits", "does_not_fit", "uncertain"]
EvidenceRange = Literal["inside", "outside"]


class Bytes(TypedDict):
    """An expected number of bytes, and the bound that holds at the asked confidence."""

    expected: int
    upper: int


class HostBytes(TypedDict):
    """Host RAM, in bytes."""

    expected: int
    pinned: int
    pageable: int


class Phase(TypedDict):
    """The largest sum of live bytes in one part of the run."""

    phase: str
    allocated_bytes: int


class Term(TypedDict):
    """Some bytes alive at the peak, by name, with how they follow from the job and where that was read."""

    name: str
    bytes: int
    formula: str
    source: str


class EstimateAnswer(TypedDict):
    """What a job needs, as `estimator.Estimate.to_json` writes it."""

    peak_allocated_bytes: Bytes
    peak_reserved_bytes: Bytes
    peak_device_bytes: Bytes
    host_bytes: HostBytes
    usable_bytes: int
    needed_bytes: Bytes
    room_bytes: int
    peak_phase: str
    phases: list[Phase]
    terms: list[Term]
    execution_path: str
    verdict: Verdict
    confidence: float
    limited_by: str
    calibration: dict[str, Any]
    evidence: EvidenceRange
    rope: dict[str, Any]
    regime: dict[str, Any]
    assumptions: list[str]
    job: dict[str, Any]


class Lengths(TypedDict):
    """Tokens; 0 where not even one fits."""

    expected: int
    safe: int


class SafeLength(TypedDict):
    """Tokens; 0 where not even one is safe."""

    safe: int


class Price(TypedDict):
    """What changes cost: points on four scales, the rank that they make together, and the words."""

    order: int
    hardware: int
    quality: int
    effort: int
    speed: int
    host_ram_bytes: int
    words: list[str]


class Standing(TypedDict):
    """How a job stands: its peak, its verdict, and the longest context that is safe with its settings."""

    peak_allocated_bytes: Bytes
    verdict: Verdict
    limited_by: str
    evidence: EvidenceRange
    max_seq_length: SafeLength
    host_bytes: HostBytes


class Proposal(Standing):
    """Changes of a job, and how it stands with them; ``job`` is the changed job, ready to be asked about."""

    goal: Literal["fit", "context", "batch"]
    changes: dict[str, Any]
    price: Price
    code: list[str]
    job: dict[str, Any]


class PlanAnswer(Standing):
    """A job as it is, and what to change in it, best first."""

    best_verdict: Verdict
    proposals: list[Proposal]
    trainer: Literal["sft", "loop"]
    simulated: int
    assumptions: list[str]
    job: dict[str, Any]


class ScriptAnswer(TypedDict):
    """A Python script that runs the job."""

    filename: str
    script: str


class PhasePeak(TypedDict):
    """The largest sum of live bytes in a part of the run."""

    phase: str
    allocated_bytes: int
    sequence_length: int | None
    host_bytes: int | None


class Finding(TypedDict):
    """Something to know or to change; ``rule`` is stable."""

    rule: str
    level: Literal["error", "warning", "note"]
    message: str
    bytes: int | None
    key: str | None
    line: int | None


class Doubt(TypedDict):
    """A setting that matters for memory and is not modelled."""

    key: str
    message: str
    effect: Literal["more", "less", "either"]
    line: int | None


class DataLengths(TypedDict):
    """How long the samples are, in tokens."""

    documents: int
    tokens: int
    p50: int
    p99: int
    longest: int


class ConfigRead(TypedDict):
    """Which tool's config it was taken as, and the releases whose defaults were assumed."""

    file: str
    tool: str
    versions: dict[str, str]


class Suggestion(Proposal):
    """A proposal in the tool's own words; ``not_in_config`` are changes that none of its settings makes."""

    config_changes: dict[str, Any]
    environment: dict[str, str]
    not_in_config: list[str]


class PreflightAnswer(TypedDict):
    """Whether the config's job fits. ``estimate`` is one as `ctxplan.client.estimate_from_json` reads it."""

    verdict: Verdict
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
    tokens_per_step: int
    tokens: DataLengths | None
    config: ConfigRead
    assumptions: list[str]
    asked: dict[str, Any]
    job: dict[str, Any]
    estimate: EstimateAnswer


class Percentiles(TypedDict):
    """Tokens that so many percent of the documents do not exceed."""

    p50: int
    p90: int
    p95: int
    p99: int
    max: int


class HistogramBucket(TypedDict):
    """Documents with ``first_tokens`` to ``last_tokens`` tokens, both included."""

    first_tokens: int
    last_tokens: int
    documents: int
    tokens: int


class DenseBatches(TypedDict):
    """An epoch in batches that are padded to their longest document."""

    batches: int
    padding_tokens: int


class PackedRows(TypedDict):
    """An epoch of a packed dataset: rows of ``max_seq_length``, and the room left in them."""

    rows: int
    batches: int
    unused_tokens: int


class LengthCut(TypedDict):
    """What a ``max_seq_length`` does to the documents."""

    max_seq_length: int
    documents_cut: int
    tokens_lost: int
    tokens_kept: int
    dense: DenseBatches
    packed: PackedRows


class LengthToAsk(TypedDict):
    """``recommended`` is None where all lengths cut too much; ``nothing_cut`` is the longest document's own."""

    recommended: int | None
    nothing_cut: int


class TokensAnswer(TypedDict):
    """Token lengths of documents, and which ``max_seq_length`` they ask for."""

    documents: int
    tokens: int
    percentiles: Percentiles
    histogram: list[HistogramBucket]
    cuts: list[LengthCut]
    max_seq_length: LengthToAsk
    max_cut_percent: float
    per_device_train_batch_size: int
    tokenizer: str | None


class Gpu(TypedDict):
    """A GPU kind; ``usable_bytes`` is the total less what CUDA and PyTorch take before the first tensor."""

    name: str
    total_bytes: int
    usable_bytes: int
    compute_capability: str
    measured: bool
    aliases: list[str]
    source: str


class Model(TypedDict):
    """A model that is known without asking the Hub."""

    id: str
    family: str
    parameters: int
    native_length: int
    aliases: list[str]


class TierMeasured(TypedDict):
    """The run that a tier's evidence is of; ``reason`` is why it does not confirm the tier."""

    sequence_length: int | None
    emulated: bool
    gpu: str | None
    num_hidden_layers: int | None
    peak_allocated_bytes: int | None
    measured_at: str | None
    reason: str | None


class TierListing(TypedDict):
    """A claim: a job at a length, and whether a real run on a real card confirms it."""

    name: str
    claim: str
    source: str
    sequence_length: int
    limited_by: str | None
    job: dict[str, Any]
    confirmed: bool
    measured: TierMeasured | None


class TierAnswer(TierListing):
    """A tier with its whole evidence."""

    evidence: dict[str, Any] | None


class Health(TypedDict):
    """The process answers."""

    status: Literal["ok"]
    version: str


class Readiness(TypedDict):
    """The catalogue is loaded and an estimate was made."""

    status: Literal["ready"]
    models: int
    gpus: int
    calibration: dict[str, Any]
