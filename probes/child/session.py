"""One process's work: load once, then measure each point, shortest first, and report as it goes."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from ctxplan.models import resolve_model
from estimator.resolve import Run
from probes.child import machine, snapshot
from probes.child.batches import check_batches
from probes.child.checkpoint import write_checkpoint
from probes.child.config import config_of, real_checkpoint
from probes.child.fill import fill_weights
from probes.child.generate import generate
from probes.child.load import Loaded, add_adapters, load_model
from probes.child.meter import PARTS, Meter, Recorder, largest
from probes.child.observe import Observer, decoder_of, execution_path
from probes.child.offloading import empty_host_cache, pinned_reserved, renew_buffers
from probes.child.train import train
from probes.errors import PointError
from probes.planned import run_of
from probes.points import Point
from probes.protocol import Events

LEFT_OVER_BYTES = 2**20
"""Of pinned memory, more than this is a layer's input of an earlier length: Unsloth offloads none below 2 MiB."""


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
        self._recorder: Recorder | None = None
        self._loaded: Loaded | None = None
        self._pinned_at_first: int | None = None
        self._host_is_own = True

    def run(self) -> None:
        """Load, then measure every point. Errors pass through."""
        machine.check_one_device()
        if self._snapshots and self.meter.cuda:
            snapshot.record_history()
        self.facts = {**machine.device(), "stack": machine.stack(), "context_bytes": self.meter.context_bytes}
        # Until a model is there that can be counted.
        self.facts["num_hidden_layers"] = run_of(self.points[0]).job.num_hidden_layers
        for point in self.points:
            check_flattened(point, run_of(point))
        loaded = self._load()
        for index, point in enumerate(self.points):
            self.index = index
            self._measure(point, loaded)

    def facts_so_far(self) -> dict[str, Any]:
        """What is known of a point that failed: the steps that ended, what was seen to run, and what the process held
        then."""
        steps = self._recorder.steps if self._recorder else []
        known = {**self.facts, "steps": steps, "steps_run": len(steps), "host": machine.host(own=self._host_is_own)}
        if self._loaded is not None:
            framework = self.points[self.index].job.framework
            known["ran"] = self._ran(self._loaded)
            known["execution_path"] = self._observer.path_so_far(known["ran"], framework)
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
        self.facts["num_hidden_layers"] = len(decoder_of(loaded.model).layers)
        if checkpoint.is_relative_to(self._folder):
            fill_weights(loaded.model)
        if point.job.mode == "train":
            loaded = self._stage("peft", lambda: loaded._replace(model=add_adapters(loaded.model, run.job)))
        self._observer.install(loaded.model, point.job.framework)
        self._loaded = loaded
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
            check_batches(point, self._observer.batches.seen, cuda=self.meter.cuda)
        ran = self._ran(loaded)
        stages = {name: self.facts[name]["seconds"] for name in ("load", "peft") if name in self.facts}
        facts = {
            **self.facts,
            **measured,
            "seconds": {**stages, **measured["seconds"]},
            "execution_path": execution_path(ran, point.job.framework, cuda=self.meter.cuda),
            "ran": ran,
            "host": machine.host(own=self._host_is_own),
            "allocator": self.meter.allocator(),
        }
        self._events.write({"event": "measured", "index": self.index, "facts": facts})

    def _ran(self, loaded: Loaded) -> dict[str, Any]:
        trains = self.points[self.index].job.mode == "train"
        optimizer = self._recorder.optimizer if self._recorder else None
        return {**self._observer.ran(loaded.model, trains=trains), "optimizer": optimizer}

    def _trained(self, point: Point, run: Run, loaded: Loaded) -> dict[str, Any]:
        recorder = self._recorder = Recorder(self.meter, self._tell)
        first_event = 0
        # The second step is watched, the last one is reported: that they agree shows that watching costs nothing.
        watched = min(2, point.steps - 1)

        @contextmanager
        def watch(step: int) -> Iterator[None]:
            nonlocal first_event
            if self._snapshots and self.meter.cuda and step == point.steps:
                first_event = snapshot.events_so_far()
            with self._observer.watching() if step == watched else nullcontext():
                yield
            self._observer.step_ended(point.job.framework)

        self._tell("trainer", None, self.meter.allocated())
        train(point, run, loaded, recorder, watch, self._folder / "trainer")
        facts = {"steps": recorder.steps, "steps_run": len(recorder.steps), **_last_step(recorder.steps[-1])}
        facts["seconds"] = {"steps": sum(step["seconds"] for step in recorder.steps)}
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
        """Give back what the last point left: gradients, optimizer, Unsloth's buffers, and torch's free blocks on the
        device and the host."""
        self._observer.forget()
        self._recorder = None
        if self.index > 0:
            loaded.model.zero_grad(set_to_none=True)
            gc.collect()
            if self.meter.cuda:
                import torch

                if point.job.framework == "unsloth":
                    renew_buffers()
                empty_host_cache()
                torch.cuda.empty_cache()
        held = pinned_reserved()
        if self.index == 0:
            self._pinned_at_first = held
        self._host_is_own = self.index == 0 or host_is_own(self._pinned_at_first, held)

    def _tell(self, phase: str, step: int | None, allocated: int | None) -> None:
        self.phase, self.step = phase, step
        self._events.write(
            {"event": "progress", "phase": phase, "index": self.index, "step": step, "allocated_bytes": allocated}
        )


def _last_step(step: Mapping[str, Any]) -> dict[str, Any]:
    """The last step's numbers, as the document has them at its top."""
    parts = {name: (step[name] or {}).get("allocated_bytes") for name in PARTS}
    facts: dict[str, Any] = {f"{name}_peak_bytes": value for name, value in parts.items()}
    for key in ("peak_allocated_bytes", "peak_reserved_bytes", "device_used_bytes"):
        facts[key] = step[key]
    return facts


def host_is_own(at_first: int | None, now: int | None) -> bool:
    """Whether the process holds no pinned memory of an earlier length.

    Args:
        at_first, now: bytes of torch's pinned allocator before the first length, and before this one; None where there
            is no such allocator, or it does not say.
    """
    return now is None or (at_first is not None and now <= at_first + LEFT_OVER_BYTES)


def check_flattened(point: Point, run: Run) -> None:
    """Raise PointError where documents of one row are asked for and the stack runs dense batches."""
    if point.sample_lengths and not run.flattened:
        allowed = "none, or padding_free: true where the model takes it"
        raise PointError("the job's batches are not flattened", key="sample_lengths", allowed=allowed)
