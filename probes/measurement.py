"""The measurement: what one point gave, as one JSON document with a version.

Bytes are int. *allocated* and *reserved* are torch's counters, *device* is what the driver counts; null where nothing
was measured (on path ``cpu`` no GPU byte is ever written).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA_VERSION = 1
OWN_INSTRUMENT = "ctxplan "
"""How the instrument of a probe begins; rows of the scratch scripts before it lack what they did not keep."""

Outcome = Literal[
    "ok", "out_of_memory", "host_out_of_memory", "crashed", "timed_out", "wrong_gpu", "neighbour", "not_supported"
]
"""``neighbour``: another process used the card, so that the point is void. ``not_supported``: the stack refused the job
with a Python error before it could run out of anything."""
ExecutionPath = Literal["eager", "block_compiled", "generated", "transformers", "cpu"]
PhaseName = Literal["start", "load", "peft", "trainer", "forward", "backward", "optimizer", "generate"]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Peak(_Document):
    """The largest that torch counted in one part of a run; null on the CPU."""

    allocated_bytes: Count | None
    reserved_bytes: Count | None


class Stage(_Document):
    """Loading, or adding the adapters: its peak, and what was allocated when it was done."""

    peak: Peak
    allocated_bytes: Count | None
    reserved_bytes: Count | None
    seconds: Seconds | None


class Step(_Document):
    """One optimizer step; with accumulation, its parts are the largest of the micro-batches'.

    Attributes:
        device_used_bytes: what the driver counted when the step was done.
    """

    forward: Peak | None
    backward: Peak | None
    optimizer: Peak | None
    peak_allocated_bytes: Count | None
    peak_reserved_bytes: Count | None
    device_used_bytes: Count | None
    loss: float | None
    seconds: Seconds


class Evaluation(Peak):
    """The peak of an evaluation, and its loss."""

    loss: float | None


class OutOfMemory(_Document):
    """What was tried when the memory ended, and what was held then. ``step`` counts from 1."""

    phase: PhaseName
    step: int | None
    tried_bytes: Count | None
    allocated_bytes: Count | None
    reserved_bytes: Count | None
    message: str


class Ran(_Document):
    """What really ran, as observed in the process; null where it was not looked at.

    Attributes:
        forward: ``__qualname__`` of the decoder model's forward, with its module.
        attention: back end that was called, and ``attention_kernel`` the fused kernel torch chose (``cudnn``,
            ``flash``, ``efficient``, ``math``, ``flex``).
        loss: implementation that was called; ``loss_rows`` the rows of its largest chunk, ``loss_chunk_bytes`` the
            logits of one, null where they live inside a compiled graph.
        layers_compiled: decoder layers that went through torch.compile.
        checkpointing: ``unsloth`` or ``torch``, by which layers were recomputed; ``none`` where none was.
        input_shape: shape of the ids of the last micro-batch that reached the model, of a generation the prompt's.
            packed_lengths: documents of the same micro-batch, where they were one row.
        inputs_offloaded: host buffers that have grown to hold a layer's input, at the end of the last step; the first
            step fills one more than the others, since it sends the last layer's input too. ``pinned_buffers`` of them
            pinned. inputs_offloaded_last: layer inputs that went to the host in the last micro-batch.
        trainable_parameters: 0 where the job generates.
    """

    forward: str | None = None
    attention: str | None = None
    attention_kernel: str | None = None
    loss: str | None = None
    loss_rows: int | None = None
    loss_chunk_bytes: int | None = None
    layers_compiled: int | None = None
    input_shape: tuple[int, ...] | None = None
    packed_lengths: tuple[int, ...] | None = None
    checkpointing: str | None = None
    inputs_offloaded: int | None = None
    inputs_offloaded_last: int | None = None
    pinned_buffers: int | None = None
    double_buffer: bool | None = None
    embedding_offloaded: bool | None = None
    optimizer: str | None = None
    trainable_parameters: int | None = None
    weight_dtypes: dict[str, int] | None = None


class Host(_Document):
    """Host RAM of the process, bytes, and of torch's pinned host allocator.

    Attributes:
        rss_bytes: resident now. anonymous_bytes: of these the kernel's RssAnon: neither pages of files, such as a
            checkpoint read through the page cache, nor pinned buffers, which are the driver's mappings.
        peak_rss_bytes: largest since the process began. pinned_allocated_bytes, pinned_reserved_bytes: pinned blocks
            in use, and all that torch keeps. These three and rss_bytes are null where blocks of an earlier length of
            the process could not be given back.
    """

    rss_bytes: Count | None
    anonymous_bytes: Count | None = None
    peak_rss_bytes: Count | None
    pinned_allocated_bytes: Count | None
    pinned_reserved_bytes: Count | None
    total_ram_bytes: Count | None


class Allocator(_Document):
    """Counters of torch's CUDA allocator over the whole process."""

    retries: Count
    out_of_memory: Count


class LiveTensor(_Document):
    """Blocks alive at the peak that one line of code allocated; ``stack`` is innermost first."""

    bytes: Count
    blocks: Count
    stack: tuple[str, ...]


class Cap(_Document):
    """A smaller card, for which this one stood in.

    Attributes:
        ballast_bytes: what another process held. not_emulated: rules of the stack that read what ballast cannot change.
    """

    total_bytes: Count
    ballast_bytes: Count
    not_emulated: tuple[str, ...]


class Measurement(_Document):
    """What one point gave.

    Attributes:
        point: `probes.points.Point.digest`. steps_asked, environment_asked: the point's own, which with the job,
            trainer, sample_lengths and cap give the digest again. lengths_before: lengths that the process had run
            before this one; null where that was not noted.
        trainer: the point's; null where the job generates, and nothing trains.
        detail: what went wrong, in a line for people; the process's last output where it died.
        killed: true where a point crashed because somebody else ended its process, which says nothing of the point;
            written only there, so that a release which does not know the word reads every other row.
        steps: every step that ended. steps_run: how many ran (rows from before this schema kept the last only).
        after_load_allocated_bytes, after_peft_allocated_bytes, forward_peak_bytes, backward_peak_bytes,
        optimizer_peak_bytes, peak_allocated_bytes, peak_reserved_bytes: allocated (and reserved) bytes of the last
            step.
        context_bytes: what the driver counted on the whole card, ballast apart, before the first tensor: this
            process's context, and what the driver keeps for itself. device_used_bytes: the same after the last step.
            total_bytes: of the card, ballast included.
        generation, evaluation: the peak of one. environment: what was set in the process.
        seconds: of the load, of adding adapters (``peft``), of all steps (``steps``) or of one generation
            (``generate``); rows from before this was noted have none.
        measured_at: when, as ISO 8601 in UTC. instrument: what measured it.
    """

    schema_version: Literal[1]
    point: str
    job: dict[str, Any]
    trainer: Literal["sft", "loop"] | None
    outcome: Outcome
    detail: str | None = None
    killed: bool | None = Field(default=None, exclude_if=lambda killed: not killed)
    out_of_memory: OutOfMemory | None = None
    execution_path: ExecutionPath | None
    num_hidden_layers: Count | None
    sequence_length: Count
    sample_lengths: tuple[int, ...] = ()
    lengths_before: tuple[int, ...] | None = ()
    steps_asked: Count | None = None
    environment_asked: dict[str, str] = Field(default_factory=dict)
    gpu: str | None
    compute_capability: tuple[int, int] | None = None
    total_bytes: Count | None = None
    context_bytes: Count | None = None
    cap: Cap | None = None
    load: Stage | None = None
    peft: Stage | None = None
    after_load_allocated_bytes: Count | None = None
    after_peft_allocated_bytes: Count | None = None
    forward_peak_bytes: Count | None = None
    backward_peak_bytes: Count | None = None
    optimizer_peak_bytes: Count | None = None
    peak_allocated_bytes: Count | None = None
    peak_reserved_bytes: Count | None = None
    device_used_bytes: Count | None = None
    generation: Peak | None = None
    evaluation: Evaluation | None = None
    steps: tuple[Step, ...]
    steps_run: Count
    host: Host | None = None
    allocator: Allocator | None = None
    ran: Ran
    live_tensors: tuple[LiveTensor, ...] | None = None
    seconds: dict[str, Seconds] = Field(default_factory=dict)
    environment: dict[str, str] = Field(default_factory=dict)
    stack: dict[str, str | None]
    measured_at: str | None
    instrument: str

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Measurement:
        if self.outcome == "ok" and self.gpu is not None and self.peak_allocated_bytes is None:
            raise ValueError("a GPU point that ended well has a peak_allocated_bytes")
        if self.outcome == "ok" and self.execution_path is None:
            raise ValueError("a point that ended well has an execution_path")
        if (self.outcome == "out_of_memory") != (self.out_of_memory is not None):
            raise ValueError("out_of_memory is given exactly where the outcome is out_of_memory")
        if self.killed is not None and self.outcome != "crashed":
            raise ValueError("killed is given only where the outcome is crashed")
        if self.execution_path == "cpu" and any(value is not None for value in self._gpu_bytes()):
            raise ValueError("path cpu carries no GPU byte")
        if not self.stack.get("torch"):
            raise ValueError("the stack names torch")
        if self.steps_run < len(self.steps):
            raise ValueError("no more steps are kept than ran")
        if "mode" not in self.job:
            raise ValueError("the job says its mode")
        trained = self.outcome == "ok" and self.job["mode"] == "train" and self.instrument.startswith(OWN_INSTRUMENT)
        if trained and (not self.steps or any(step.loss is None for step in self.steps)):
            raise ValueError("a training that ended well has steps, and each has a finite loss")
        return self

    def _gpu_bytes(self) -> Iterator[object]:
        """Every value that is bytes of a GPU, or of memory pinned for one."""
        yield from (getattr(self, name) for name in type(self).model_fields if name.endswith("_bytes"))
        yield from (self.cap, self.allocator, self.live_tensors, self.out_of_memory)
        yield from (_all_bytes(part) for part in (self.load, self.peft, self.generation, self.evaluation, *self.steps))
        if self.host is not None:
            yield from (self.host.pinned_allocated_bytes, self.host.pinned_reserved_bytes)


def _all_bytes(part: BaseModel | None) -> list[object] | None:
    """The values of a part, and of its parts, whose names end in ``_bytes``; None where all are null."""
    if part is None:
        return None
    found: list[object] = []
    for name, value in part:
        inner = _all_bytes(value) if isinstance(value, BaseModel) else value if name.endswith("_bytes") else None
        found += [] if inner is None else [inner]
    return found or None


def validate(document: Any) -> Measurement:
    """Check a document against the schema. Raises pydantic.ValidationError, which names the key."""
    return Measurement.model_validate(document)


def measurement_schema() -> dict[str, Any]:
    """The document as JSON Schema."""
    return Measurement.model_json_schema()
