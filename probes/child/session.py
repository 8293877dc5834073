"""One process's work: load once, then measure each point, shortest first, and report as it goes."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ctxplan.models import resolve_model
from estimator.resolve import Run
from probes.child import machine, snapshot
from probes.child.checkpoint import write_checkpoint
from probes.child.config import config_of, real_checkpoint
from probes.child.data import document_lengths
from probes.child.fill import fill_weights
from probes.child.generate import generate
from probes.child.load import Loaded, add_adapters, load_model
from probes.child.meter import PARTS, Meter, Recorder, largest
from probes.child.observe import Observer, execution_path
from probes.child.train import train
from probes.errors import PointError, WrongBatch
from probes.planned import run_of
from probes.points import Point
from probes.protocol import Events


class Session:
    """Measures points that differ in their length alone.

    Attributes:
        index: the point that is being measured. phase, step: where the process is, for whoever explains a failure.
    """

    def __init__(self, points: Sequence[Point], events: Events, *, folder: Path, ballast_bytes: int, snapshots: bool):
        self.points = points
        self.index = 0
        self.phase = "start"
        self.step: int | None = None
        self.facts: dict[str, Any] = {}
        self._events = events
        self._folder = folder
        self._snapshots = snapshots
        self.meter = Meter(ballast_bytes=ballast_bytes)
        self._observer = Observer(self.meter)
        self._steps: list[dict[str, Any]] = []
        self._optimizer: str | None = None

    def run(self) -> None:
        """Load, then measure every point. Errors pass through."""
        if self._snapshots and self.meter.cuda:
            snapshot.record_history()
        self.facts = {**machine.device(), "stack": machine.stack(), "context_bytes": self.meter.context_bytes}
        self.facts["num_hidden_layers"] = run_of(self.points[0]).job.num_hidden_layers
        loaded = self._load()
        for index, point in enumerate(self.points):
            self.index = index
            self._measure(point, loaded)

    def facts_so_far(self) -> dict[str, Any]:
        """What is known of a point that failed: the steps that ended, and what the process held then."""
        known = {**self.facts, "steps": self._steps, "steps_run": len(self._steps), "host": machine.host()}
        return {**known, "allocator": self.meter.allocator()}

    def _load(self) -> Loaded:
        point = self.points[0]
        run = run_of(point)
        checkpoint = real_checkpoint(point.job.model)
        if checkpoint is None:
            checkpoint = self._folder / "checkpoint"
            write_checkpoint(config_of(point.job.model, point.job.num_hidden_layers), checkpoint)
        elif run.job.num_hidden_layers != resolve_model(point.job.model, offline=True).architecture.num_hidden_layers:
            raise PointError("a real checkpoint runs with all its layers", key="job.num_hidden_layers", allowed="null")
        loaded: Loaded = self._stage("load", lambda: load_model(point.job, run, str(checkpoint)))
        if checkpoint.is_relative_to(self._folder):
            fill_weights(loaded.model)
        if point.job.mode == "train":
            loaded = self._stage("peft", lambda: loaded._replace(model=add_adapters(loaded.model, run.job)))
        self._observer.install(loaded.model, point.job.framework)
        return loaded

    def _stage(self, phase: str, act: Any) -> Any:
        """Run a part that happens once, and keep its peak."""
        self._tell(phase, None, self.meter.allocated())
        self.meter.reset()
        began = self.meter.synchronise()
        result = act()
        gc.collect()
        seconds = self.meter.synchronise() - began
        self.facts[phase] = {
            "peak": self.meter.peak(),
            "allocated_bytes": self.meter.allocated(),
            "reserved_bytes": self.meter.reserved(),
            "seconds": seconds,
        }
        self.facts[f"after_{phase}_allocated_bytes"] = self.meter.allocated()
        return result

    def _measure(self, point: Point, loaded: Loaded) -> None:
        self._start_afresh(point, loaded)
        run = run_of(point)
        if point.job.mode == "generate":
            measured = self._generated(point, run, loaded)
        else:
            measured = self._trained(point, run, loaded)
        ran = {**self._observer.ran(loaded.model), "optimizer": self._optimizer}
        # The CPU backend pads what a GPU flattens; the shape that it was given is on record all the same.
        if point.job.mode == "train" and (self.meter.cuda or not point.sample_lengths):
            check_tokens(point, ran)
        facts = {
            **self.facts,
            **measured,
            "execution_path": execution_path(ran, point.job.framework, cuda=self.meter.cuda),
            "ran": ran,
            "host": machine.host(),
            "allocator": self.meter.allocator(),
        }
        self._events.write({"event": "measured", "index": self.index, "facts": facts})

    def _trained(self, point: Point, run: Run, loaded: Loaded) -> dict[str, Any]:
        recorder = Recorder(self.meter, self._tell)
        first_event = 0
        # The second step is watched, the last one is reported: that they agree shows that watching costs nothing.
        watched = min(2, point.steps)

        @contextmanager
        def watch(step: int) -> Iterator[None]:
            nonlocal first_event
            if self._snapshots and self.meter.cuda and step == point.steps:
                first_event = snapshot.events_so_far()
            with self._observer.watching() if step == watched else nullcontext():
                yield
            self._observer.step_ended(point.job.framework)

        self._tell("trainer", None, self.meter.allocated())
        self._steps = recorder.steps
        train(point, run, loaded, recorder, watch, self._folder / "trainer")
        self._optimizer = recorder.optimizer
        facts = {"steps": recorder.steps, "steps_run": len(recorder.steps), **_last_step(recorder.steps[-1])}
        if self._snapshots and self.meter.cuda:
            facts["live_tensors"] = snapshot.live_at_peak(first_event)
        return facts

    def _generated(self, point: Point, run: Run, loaded: Loaded) -> dict[str, Any]:
        self._tell("generate", None, self.meter.allocated())
        with self._observer.watching():
            generate(run, loaded, self.meter, times=1)
        results = generate(run, loaded, self.meter, times=point.steps - 1)
        peak = None
        for one, _ in results:
            peak = largest(peak, one)
        peak = peak or self.meter.peak()
        return {
            "steps": [],
            "steps_run": point.steps,
            "generation": peak,
            "peak_allocated_bytes": peak["allocated_bytes"],
            "peak_reserved_bytes": peak["reserved_bytes"],
            "device_used_bytes": self.meter.device_used(),
            "seconds": {"generate": results[-1][1]},
        }

    def _start_afresh(self, point: Point, loaded: Loaded) -> None:
        """Give back what the last point left: gradients, optimizer, Unsloth's buffers, torch's free blocks."""
        self._observer.forget()
        self._steps = []
        if self.index == 0:
            return
        loaded.model.zero_grad(set_to_none=True)
        gc.collect()
        if self.meter.cuda:
            import torch

            if point.job.framework == "unsloth":
                _reset_offloading()
            torch.cuda.empty_cache()

    def _tell(self, phase: str, step: int | None, allocated: int | None) -> None:
        self.phase, self.step = phase, step
        self._events.write(
            {"event": "progress", "phase": phase, "index": self.index, "step": step, "allocated_bytes": allocated}
        )


def _reset_offloading() -> None:
    """Bring Unsloth's staging and host buffers back to their first size; it has none outside mode ``"unsloth"``."""
    from unsloth_zoo import gradient_checkpointing as smart

    if getattr(smart, "GPU_BUFFERS", None) is not None:
        smart.reset_unsloth_gradient_checkpointing_buffers()


def _last_step(step: Mapping[str, Any]) -> dict[str, Any]:
    """The last step's numbers, as the document has them at its top."""
    parts = {name: (step[name] or {}).get("allocated_bytes") for name in PARTS}
    facts: dict[str, Any] = {f"{name}_peak_bytes": value for name, value in parts.items()}
    for key in ("peak_allocated_bytes", "peak_reserved_bytes", "device_used_bytes"):
        facts[key] = step[key]
    return facts


def check_tokens(point: Point, ran: Mapping[str, Any]) -> None:
    """Hold the batch that reached the model to the one that was asked for.

    Raises:
        WrongBatch: the trainer cut, padded or dropped something, so that another job was measured.
    """
    asked = document_lengths(point)
    rows = math.prod(ran["input_shape"])
    if rows != sum(asked):
        raise WrongBatch(f"the model was given {rows} tokens a micro-batch, {sum(asked)} were asked for")
