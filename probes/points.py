"""A point: one job at one sequence length, to be measured, and how its steps are run.

As JSON, a job by itself, or ``{"job": JOB, "trainer": "loop", ...}``; with ``"sequence_lengths": [...]`` it stands for
several points that share a process, shortest first.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple, get_args

from estimator import Job, job_to_json, parse_job
from estimator.errors import JobError
from estimator.job import MAX_BYTES, MAX_TOKENS
from estimator.rules import Choice, Integer, Optional, Rule, parse_object, shown
from probes.environment import POINT_VALUE, POINT_VARIABLES, not_for_a_point
from probes.errors import PointError

Trainer = Literal["sft", "loop"]
"""``sft``: TRL's SFTTrainer, as users run it. ``loop``: forward, backward and optimizer step, nothing else."""

MIN_STEPS, MAX_STEPS = 2, 1000
DEFAULT_STEPS = 3
"""Memory repeats from the second step on, to the byte where nothing is routed; a third step shows that it does."""
MAX_LENGTHS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What to measure.

    Attributes:
        job: the job as asked; what it leaves null the stack decides, and the measurement says what that was.
        trainer: how the steps are run; None where the job generates, and nothing trains.
        steps: optimizer steps, each measured; of a job that generates, how many times it does.
        sample_lengths: documents of one flattened micro-batch, tokens each; empty for documents of sequence_length.
        environment: variables set for the process beside those that the job implies.
        cap_bytes: total bytes of a smaller card that this one stands in for, held back by ballast; None for the
            card as it is.
    """

    job: Job
    trainer: Trainer | None
    steps: int = DEFAULT_STEPS
    sample_lengths: tuple[int, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    cap_bytes: int | None = None

    @property
    def digest(self) -> str:
        """What is measured, as a name: SHA-256 of the canonical JSON, hexadecimal."""
        canonical = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    @property
    def sequence_length(self) -> int:
        return self.job.sequence_length or self.job.max_seq_length

    def to_json(self) -> dict[str, Any]:
        """The point as plain JSON values, every key present."""
        return {
            "job": job_to_json(self.job),
            "trainer": self.trainer,
            "steps": self.steps,
            "sample_lengths": list(self.sample_lengths),
            "environment": dict(sorted(self.environment.items())),
            "cap_bytes": self.cap_bytes,
        }


def parse_points(data: Any) -> tuple[Point, ...]:
    """Read a point, or the points that share a process, from parsed JSON; ascending in length.

    Raises:
        PointError: an unknown key or a bad value of the point. JobError: the same of its job.
    """
    if not isinstance(data, Mapping) or "job" not in data:
        return (_point(parse_job(data), {}),)
    values = parse_object(_RULES, data, what="a point", required=frozenset({"job"}))
    job = values.pop("job")
    lengths = values.pop("sequence_lengths", None)
    if lengths is None:
        return (_point(job, values),)
    if job.sequence_length is not None:
        raise PointError("is given beside the job's sequence_length", key="sequence_lengths", allowed="one of the two")
    if values.get("sample_lengths"):
        raise PointError("is given beside sequence_lengths", key="sample_lengths", allowed="one of the two")
    return tuple(_point(replace(job, sequence_length=length), values) for length in sorted(lengths))


def parse_point(data: Any) -> Point:
    """Read one point. Raises PointError where the JSON stands for several, else as `parse_points`."""
    points = parse_points(data)
    if len(points) > 1:
        raise PointError("stands for several points", key="sequence_lengths", allowed="a single length here")
    return points[0]


def _point(job: Job, values: Mapping[str, Any]) -> Point:
    point = Point(job=job, **{**values, "trainer": _trainer(job, values.get("trainer"))})
    if job.per_device_eval_batch_size:
        raise PointError("evaluation is not probed", key="job.per_device_eval_batch_size", allowed="null or 0")
    if job.mode == "generate" and not job.max_new_tokens:
        raise PointError("nothing would be generated", key="job.max_new_tokens", allowed="1 or more with mode generate")
    if job.framework == "transformers" and job.packing:
        raise PointError("the transformers path runs dense batches", key="job.packing", allowed="false")
    if point.sample_lengths:
        _check_sample_lengths(point)
    return point


def _trainer(job: Job, asked: Trainer | None) -> Trainer | None:
    """Unsloth is used with SFTTrainer, and plain transformers in a loop, unless something else was asked for."""
    if job.mode != "generate":
        return asked or ("sft" if job.framework == "unsloth" else "loop")
    if asked is not None:
        raise PointError("nothing trains where the job generates", key="trainer", allowed="null with mode generate")
    return None


def _check_sample_lengths(point: Point) -> None:
    """Raise PointError unless the documents are one flattened micro-batch of the length that the job names."""
    job, key = point.job, "sample_lengths"
    flattens = job.framework == "unsloth" and (job.packing or job.padding_free is not False)
    if job.mode != "train" or not flattens:
        raise PointError("is for flattened batches", key=key, allowed="a training with packing or padding_free")
    for number, length in enumerate(point.sample_lengths):
        if length > job.max_seq_length:
            allowed = f"at most max_seq_length, {job.max_seq_length}"
            raise PointError(f"{length} tokens are cut", key=f"{key}[{number}]", allowed=allowed)
    total, rows = sum(point.sample_lengths), job.per_device_train_batch_size
    if total != rows * point.sequence_length:
        allowed = f"{rows * point.sequence_length} tokens together: {rows} x {point.sequence_length} of the job"
        raise PointError(f"the documents have {total} tokens", key=key, allowed=allowed)


class _JobRule:
    def parse(self, key: str, value: Any) -> Job:
        try:
            return parse_job(value)
        except JobError as error:
            dotted = f"{key}.{error.key}" if error.key else key
            raise JobError(error.message, key=dotted, allowed=error.allowed) from None

    def schema(self) -> dict[str, Any]:
        return {"type": "object"}


class _Lengths(NamedTuple):
    """Token counts, at least so many of them."""

    least: int

    def parse(self, key: str, value: Any) -> tuple[int, ...]:
        if not isinstance(value, list) or not self.least <= len(value) <= MAX_LENGTHS:
            allowed = f"{self.least} to {MAX_LENGTHS} token counts"
            raise PointError(f"{shown(value)} is not accepted", key=key, allowed=allowed)
        one = Integer(1, MAX_TOKENS)
        return tuple(one.parse(f"{key}[{i}]", length) for i, length in enumerate(value))

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": Integer(1, MAX_TOKENS).schema(), "minItems": self.least}


class _Environment:
    """Variables that change memory: no other reaches the process."""

    def parse(self, key: str, value: Any) -> dict[str, str]:
        if not isinstance(value, Mapping) or not all(isinstance(text, str) for text in value.values()):
            raise PointError(f"{shown(value)} is not accepted", key=key, allowed="an object of strings")
        for name, text in value.items():
            if allowed := not_for_a_point(str(name), text):
                raise PointError("is not set for a probe", key=f"{key}.{name}", allowed=allowed)
        return {str(name): text for name, text in value.items()}

    def schema(self) -> dict[str, Any]:
        names, text = {"enum": sorted(POINT_VARIABLES)}, {"type": "string", "pattern": f"^{POINT_VALUE}$"}
        return {"type": "object", "propertyNames": names, "additionalProperties": text}


_RULES: Mapping[str, Rule] = {
    "job": _JobRule(),
    "trainer": Optional(Choice(get_args(Trainer))),
    "steps": Integer(MIN_STEPS, MAX_STEPS),
    "sample_lengths": _Lengths(0),
    "sequence_lengths": _Lengths(1),
    "environment": _Environment(),
    "cap_bytes": Optional(Integer(2**30, MAX_BYTES)),
}
