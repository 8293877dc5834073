"""How long a point takes on a GPU: what a campaign of measurements costs before it is run.

A process starts, loads, adds adapters, and then runs each of its lengths: a first step that compiles and tunes, and
steady ones. Fitted by non-negative least squares to the committed rows that noted these times (one H100 80GB, ctxplan
0.1.0); `fit_seconds` gives `SECONDS` again. Steps of other cards differ, the rest hardly: on a twin of few layers the
steps are the least part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import median
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from estimator.answer import Prepared
from estimator.architecture import Architecture, LayerGroup
from estimator.sizes import Sizes
from probes.fitting.observations import Observation
from probes.measurement import OWN_INSTRUMENT

PATHS = ("eager", "block_compiled", "generated")


class Work(NamedTuple):
    """What a point does.

    Attributes:
        weights_gib: GiB of the loaded weights. layers: decoder layers. path: execution path. dense_tflop,
            attention_tflop: arithmetic of one step, of the linears and of attention. again: whether its process ran
            another length before.
    """

    weights_gib: float
    layers: int
    path: str
    dense_tflop: float
    attention_tflop: float
    again: bool = False


class Seconds(NamedTuple):
    """The model of a point's time, seconds.

    Attributes:
        start: from the command to the load, and from the last step to the end: imports, the synthetic checkpoint.
        load, load_gib: a load, and each GiB of weights. adapters, adapters_layer: adding them, and for each layer.
        first: path -> what its first step takes beyond a steady one. first_again: the same of a later length.
        step_layer, step_dense, step_attention: a steady step, for each layer, and for each TFLOP.
    """

    start: float
    load: float
    load_gib: float
    adapters: float
    adapters_layer: float
    first: dict[str, float]
    first_again: dict[str, float]
    step_layer: float
    step_dense: float
    step_attention: float

    def process(self, work: Work) -> float:
        """What a process takes before its first step and after its last."""
        load = self.load + self.load_gib * work.weights_gib
        return self.start + load + self.adapters + self.adapters_layer * work.layers

    def steps(self, work: Work, count: int) -> float:
        """What the steps of one length take, the first included."""
        first = (self.first_again if work.again else self.first)[work.path if work.path in PATHS else "eager"]
        return first + count * self.step(work)

    def step(self, work: Work) -> float:
        """A steady step."""
        arithmetic = self.step_dense * work.dense_tflop + self.step_attention * work.attention_tflop
        return self.step_layer * work.layers + arithmetic


START_SECONDS = 32.0
"""Between the end of one process's last step and the load of the next, in a sweep: 30 to 34 s between nine pairs of
consecutive rows in ``evidence/measurements/h100-80gb-2026-11-25.jsonl``, by when they were measured."""

SECONDS = Seconds(
    start=START_SECONDS,
    load=2.27716,
    load_gib=0.46343,
    adapters=4.42606,
    adapters_layer=0.11441,
    first={"eager": 5.0, "block_compiled": 32.53, "generated": 40.89},
    first_again={"eager": 5.41, "block_compiled": 32.53, "generated": 8.18},
    step_layer=0.01419,
    step_dense=0.00091,
    step_attention=0.00231,
)
"""Fitted to the 29 rows of ``evidence/measurements/h100-80gb-2026-11-25.jsonl``. What a row noted of its load, adapters
and steps is off by 14 % in the median and by less than a factor of 2 in nine of ten; the rest is decided by what
torch.compile and Triton find in their caches (gpt-oss's second length took 1.1 s at best and 37 s at worst)."""


def work_of(prepared: Prepared, z: Sizes, *, again: bool = False) -> Work:
    """What one step of a prepared run does: forward, its repetition in the backward, and the backward.

    With LoRA a linear takes 2 FLOPs an element and token in each of the three; full fine-tuning a fourth for the
    weights' own gradients. Attention takes 4 S q a token over a causal half, once forward, once again, and 2.5 times
    backward.
    """
    run, statics = prepared
    passes = 4 if run.job.full_finetuning else 3
    elements = sum(len(group.indices) * _elements(group) for group in run.architecture.layers)
    dense = 2 * passes * elements * z.tokens + 4 * run.architecture.hidden_size * run.architecture.vocab_size * z.tokens
    attention = 4.5 * 2 * z.tokens * _attended(run.architecture, z)
    weights = statics.weights.total
    return Work(
        weights_gib=weights / 2**30,
        layers=run.architecture.num_hidden_layers,
        path=run.path,
        dense_tflop=dense / 1e12,
        attention_tflop=attention / 1e12,
        again=again,
    )


def fit_seconds(observed: Iterable[Observation]) -> Seconds:
    """The model from rows of the probe itself; rows of the same process share its load. Raises ValueError on none."""
    rows = [(one, _work(one)) for one in observed if one.measured.instrument.startswith(OWN_INSTRUMENT)]
    fresh = [(one, work) for one, work in rows if not work.again]
    load = _fitted([[1, work.weights_gib] for _, work in fresh], [_stage(one.measured.load) for one, _ in fresh])
    adapters = _fitted([[1, work.layers] for _, work in fresh], [_stage(one.measured.peft) for one, _ in fresh])
    step = _fitted(
        [[work.layers, work.dense_tflop, work.attention_tflop] for _, work in rows],
        [one.measured.steps[-1].seconds for one, _ in rows],
    )
    firsts: dict[tuple[bool, str], list[float]] = defaultdict(list)
    for one, work in rows:
        steps = one.measured.steps
        firsts[work.again, work.path].append(max(steps[0].seconds - steps[-1].seconds, 0.0))
    first, again = ({path: _middle(firsts, is_again, path) for path in PATHS} for is_again in (False, True))
    return Seconds(
        start=START_SECONDS,
        load=load[0],
        load_gib=load[1],
        adapters=adapters[0],
        adapters_layer=adapters[1],
        first=first,
        first_again=again,
        step_layer=step[0],
        step_dense=step[1],
        step_attention=step[2],
    )


def errors_of(observed: Iterable[Observation], seconds: Seconds = SECONDS) -> list[float]:
    """Predicted over measured seconds less one of every row's load, adapters and steps; the start is not in a row."""
    found = []
    for one in observed:
        measured = one.measured
        if not measured.instrument.startswith(OWN_INSTRUMENT):
            continue
        work = _work(one)
        took = sum(step.seconds for step in measured.steps)
        expected = seconds.steps(work, len(measured.steps))
        if not work.again:
            took += _stage(measured.load) + _stage(measured.peft)
            expected += seconds.process(work) - seconds.start
        found.append(expected / took - 1)
    return found


def _work(one: Observation) -> Work:
    return work_of(one.prepared, one.z, again=bool(one.measured.lengths_before))


def _stage(stage: object) -> float:
    return float(getattr(stage, "seconds", None) or 0.0)


def _fitted(features: Sequence[Sequence[float]], seconds: Sequence[float]) -> list[float]:
    """Coefficients that are none below zero, by least squares in relative error."""
    if not features:
        raise ValueError("no row noted its times")
    took = np.maximum(np.array(seconds, dtype=float), 0.1)  # below that the clock and the launches decide
    solved, _ = nnls(np.array(features, dtype=float) / took[:, None], np.array(seconds, dtype=float) / took)
    return [round(float(value), 5) for value in solved]


def _middle(firsts: dict[tuple[bool, str], list[float]], again: bool, path: str) -> float:
    """Of a path that has no such row, the one of its process's first length; of one that has none at all, of all."""
    found = firsts.get((again, path)) or firsts.get((not again, path)) or [v for vs in firsts.values() for v in vs]
    return round(median(found), 2)


def _elements(group: LayerGroup) -> int:
    """Weight elements of one layer that a token passes."""
    linears = sum(linear.weights * linear.copies for linear in group.linears)
    experts = group.experts
    return linears + (experts.per_token * (experts.gate_up + experts.down) if experts else 0)


def _attended(architecture: Architecture, z: Sizes) -> int:
    """Query width times the keys that a token sees, of all layers, the causal half apart."""
    lengths = ((len(group.indices), min(z.length, group.sliding_window or z.length)) for group in architecture.layers)
    return sum(layers * length for layers, length in lengths) * architecture.query_width
