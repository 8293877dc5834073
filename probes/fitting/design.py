"""Which few points pin a model: a greedy, cost-aware D-optimal choice among its twins.

A point is worth what it adds to the information about the coefficients that `probes.fitting.coefficients` will fit: its
forward and its backward each give one row, the widths of the widest instant over its noise. The next point is the one
that adds the most to the logarithm of the information's determinant for each second that it takes on the GPU (Fedorov,
"Theory of Optimal Experiments", 1972), until the peak of the full depth is known well enough. A path that is written
down has no coefficients; there the structure's own error, as its margins state it, is what is measured.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from estimator import Job, job_to_json
from estimator.answer import Prepared, outcome_at, prepare
from estimator.architecture import Architecture
from estimator.calibration.corrections import CORRECTED_PATHS, kind_of, widths
from estimator.calibration.document import STRUCTURAL, WIDTHS, Calibration
from estimator.calibration.structural import PATH_MARGINS
from estimator.parameters import with_layers
from estimator.phases import simulate
from estimator.sizes import Sizes, sizes_of
from probes.errors import PointError
from probes.fitting.coefficients import NOISE, PULL, Key, group_of_phase
from probes.fitting.seconds import SECONDS, Seconds, work_of
from probes.points import DEFAULT_STEPS
from probes.twins import LEAST_LAYERS

LENGTHS = (2048, 4096, 8192, 16_384, 32_768)
ENOUGH = 0.005
"""Standard error of the full depth's peak, relative, at which no more points are asked for."""

TIME_LIMIT_SECONDS = 300.0
LEAST_ROWS = 2
"""Points of each set of coefficients: `probes.fitting.coefficients.is_better` keeps only those that help a point which
they were not fitted to."""

QUANTILE_95 = 1.645
"""Of the normal distribution: a 95 % margin of the structure in its standard deviations."""

STRUCTURE = "structure"
UNKNOWNS = (*WIDTHS, STRUCTURE)

Batch = Literal["flattened", "dense", "packed"]
BATCHES: dict[Batch, dict[str, Any]] = {
    "flattened": {"packing": False, "padding_free": True},
    "dense": {"packing": False, "padding_free": False},
    "packed": {"packing": True, "padding_free": None},
}
Checkpointing = Literal["unsloth", True, False]
Vector = NDArray[np.float64]


class Part(NamedTuple):
    """One measured part of a step: whose coefficients its widest instant takes, and bytes of each unknown's one."""

    key: Key
    sizes: Vector
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One point of a design.

    Attributes:
        job: the twin's job, without its length. length: tokens of a sequence. seconds: what it adds to the campaign on
            the GPU, its process included where it is the first of it. standard_error: of the full depth's peak,
            relative, once this point and those before it are measured.
    """

    job: Job
    length: int
    seconds: float
    standard_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """The points in the order of their worth.

    Attributes:
        before: standard error of the full depth's peak, relative, before any. reached: whether the last is enough.
    """

    choices: tuple[Choice, ...]
    before: float
    reached: bool

    @property
    def seconds(self) -> float:
        """Predicted time of all of them on the GPU."""
        return sum(one.seconds for one in self.choices)

    @property
    def after(self) -> float:
        return self.choices[-1].standard_error if self.choices else self.before

    def points(self) -> list[dict[str, Any]]:
        """What ``ctxplan probe --sweep`` takes, a line each: the lengths of one job share a process."""
        lengths: dict[str, list[int]] = {}
        jobs: dict[str, Job] = {}
        for one in self.choices:
            name = repr(one.job)
            jobs[name] = one.job
            lengths.setdefault(name, []).append(one.length)
        return [{"job": job_to_json(job), "sequence_lengths": sorted(lengths[name])} for name, job in jobs.items()]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    job: Job
    length: int
    parts: tuple[Part, ...]
    prepared: Prepared
    z: Sizes

    @property
    def keys(self) -> frozenset[Key]:
        return frozenset(part.key for part in self.parts)


def variants(job: Job, checkpointing: Sequence[Checkpointing] = (), batches: Sequence[Batch] = ()) -> list[Job]:
    """The job in every mode and kind of batch that is asked for; by default as it is."""
    modes = [replace(job, use_gradient_checkpointing=one) for one in checkpointing] or [job]
    return [replace(one, **BATCHES[batch]) for one in modes for batch in batches] or modes


def design(
    jobs: Sequence[Job],
    architecture: Architecture,
    *,
    calibration: Calibration = STRUCTURAL,
    seconds: Seconds = SECONDS,
    time_limit: float = TIME_LIMIT_SECONDS,
    enough: float = ENOUGH,
) -> Design:
    """Choose the points.

    Args:
        jobs: variants of one job at the length and depth that is asked about (`variants`). calibration: says which
            twins fit the card. time_limit: seconds on the GPU, all points together.

    Raises:
        PointError: a job does not train, or no twin fits the card and the time.
        CtxplanError: a job cannot be planned.
    """
    for job in jobs:
        if job.mode != "train":
            raise PointError("only training is calibrated", key="mode", allowed="train")
    targets = [_target(job, architecture) for job in jobs]
    left = [one for job in jobs for one in _candidates(job, architecture, calibration)]
    information = _Information()
    before = error = information.standard_error(targets)
    chosen: list[Choice] = []
    started: set[str] = set()
    spent = 0.0
    while wanted := information.wanted(targets, enough):
        priced = [(one, _seconds_of(one, started, seconds)) for one in left if one.keys & wanted]
        affordable = [(one, cost) for one, cost in priced if spent + cost <= time_limit]
        if not affordable:
            break
        best, cost = max(affordable, key=lambda pair: information.gain(pair[0].parts) / pair[1])
        left.remove(best)
        started.add(repr(best.job))
        spent += cost
        information.add(best.parts)
        error = information.standard_error(targets)
        chosen.append(Choice(job=best.job, length=best.length, seconds=cost, standard_error=error))
    if not chosen:
        raise PointError(
            f"no twin of {architecture.model_type} fits the card within {time_limit:.0f} s",
            key="gpu",
            allowed="a larger card, or more time",
        )
    return Design(choices=tuple(chosen), before=before, reached=not wanted)


class _Information:
    """The information matrices of the coefficients, one for each key, with the fit's own prior."""

    def __init__(self) -> None:
        self._matrices: dict[Key, Vector] = {}
        self._rows: Counter[Key] = Counter()

    def add(self, parts: Sequence[Part]) -> None:
        self._rows.update(part.key for part in parts)
        for part in parts:
            row = _row(part)
            self._matrices[part.key] = self._of(part.key) + np.outer(row, row)

    def gain(self, parts: Sequence[Part]) -> float:
        """What some rows add to the logarithm of the determinant, each by itself."""
        return float(sum(np.log1p(_row(part) @ np.linalg.solve(self._of(part.key), _row(part))) for part in parts))

    def standard_error(self, targets: Sequence[Sequence[Part]]) -> float:
        """The largest of the targets' relative standard errors: of the part that is the peak, or may be."""
        return max(self._error_of(parts) for parts in targets)

    def wanted(self, targets: Sequence[Sequence[Part]], enough: float) -> frozenset[Key]:
        """The coefficients of which more must be known: those of targets that are not known well enough, and those of
        which there are too few rows for a fit to keep them."""
        open_ones = {part.key for parts in targets if self._error_of(parts) > enough for part in parts}
        few = {part.key for parts in targets for part in parts if self._rows[part.key] < LEAST_ROWS}
        return frozenset(open_ones | few)

    def _error_of(self, parts: Sequence[Part]) -> float:
        peak = max(part.bytes for part in parts)
        errors = [float(np.sqrt(part.sizes @ np.linalg.solve(self._of(part.key), part.sizes))) for part in parts]
        reaching = [error for part, error in zip(parts, errors, strict=True) if part.bytes + 2 * error >= peak]
        return max(reaching) / peak

    def _of(self, key: Key) -> Vector:
        if key not in self._matrices:
            margin = PATH_MARGINS[key[0]].allocated / QUANTILE_95
            deviations = np.array([PULL] * len(WIDTHS) + [margin])
            self._matrices[key] = np.diag(deviations**-2.0)
        return self._matrices[key]


def _row(part: Part) -> Vector:
    return part.sizes / (NOISE * part.bytes)


def _parts(prepared: Prepared, z: Sizes) -> tuple[Part, ...]:
    """The forward and the backward of a step, as `probes.fitting.coefficients` makes equations of them."""
    run, statics = prepared
    peaks = {phase.phase: phase for phase in simulate(run, statics, z).peaks}
    found = []
    for names in (("forward", "loss"), ("backward",)):
        widest = max((peaks[name] for name in names if name in peaks), key=lambda phase: phase.allocated_bytes)
        known = widths(run, z) if run.path in CORRECTED_PATHS else {STRUCTURE: widest.allocated_bytes}
        sizes = np.array([known.get(name, 0) for name in UNKNOWNS], dtype=float)
        found.append(Part((run.path, group_of_phase(widest), kind_of(run)), sizes, widest.allocated_bytes))
    return tuple(found)


def _target(job: Job, architecture: Architecture) -> tuple[Part, ...]:
    """The parts of the job as it is asked about."""
    prepared = prepare(job, architecture)
    return _parts(prepared, _sizes(prepared, job.sequence_length or job.max_seq_length))


def _candidates(job: Job, architecture: Architecture, calibration: Calibration) -> Iterator[_Candidate]:
    """The twins of a job at each length that fits the card."""
    asked = job.sequence_length or job.max_seq_length
    lengths = sorted({*LENGTHS, min(asked, LENGTHS[-1])})
    longest = max(job.max_seq_length, lengths[-1])
    for layers in _depths(job, architecture):
        twin = replace(job, num_hidden_layers=layers, max_seq_length=longest, sequence_length=None)
        planned = prepare(twin, architecture, calibration)
        plain = prepare(twin, architecture)
        for length in lengths:
            if outcome_at(planned, longest, length).verdict != "fits":
                continue
            z = _sizes(plain, length)
            yield _Candidate(job=twin, length=length, parts=_parts(plain, z), prepared=plain, z=z)


def _depths(job: Job, architecture: Architecture) -> list[int | None]:
    """The least depth that has every kind of layer, and one more; the job's own where it is no deeper."""
    depth = job.num_hidden_layers or architecture.num_hidden_layers
    full = with_layers(architecture, depth)
    kinds = len(full.layers)
    least = next(
        (n for n in range(LEAST_LAYERS, depth) if len(with_layers(architecture, n).layers) == kinds),
        None,
    )
    if least is None:
        return [job.num_hidden_layers]
    return [least, least + 1] if least + 1 < depth else [least]


def _sizes(prepared: Prepared, length: int) -> Sizes:
    job = prepared.run.job
    return sizes_of(
        prepared.run.architecture,
        max_seq_length=job.max_seq_length,
        sequences=job.per_device_train_batch_size,
        length=length,
    )


def _seconds_of(one: _Candidate, started: set[str], seconds: Seconds) -> float:
    """What a candidate adds to the campaign: its process where that has not started, and its steps."""
    again = repr(one.job) in started
    work = work_of(one.prepared, one.z, again=again)
    return seconds.steps(work, DEFAULT_STEPS) + (0.0 if again else seconds.process(work))
