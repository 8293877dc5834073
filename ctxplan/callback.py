"""In a training run: a callback that compares the plan with the first steps.

    trainer = SFTTrainer(..., callbacks=[PlanCallback()])
    with explain_out_of_memory(trainer):
        trainer.train()

Importing this file imports transformers; `ctxplan` alone does not.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ctxplan.live import Batches, cuda_peaks, job_of, longest_sample, trained_bytes
from ctxplan.observations import Observations, Takes
from ctxplan.out_of_memory import explain_out_of_memory
from ctxplan.planning import Planner
from ctxplan.watching import RunPlan, Seen, after_a_step, at_length, before_the_run, plan_run, will_not_fit
from estimator import CtxplanError, Job

__all__ = ["PlanCallback", "explain_out_of_memory"]

LOG = logging.getLogger("ctxplan")
LOG.addHandler(logging.NullHandler())
"""Without a handler of anybody's, Python would print each warning to standard error a second time."""
FIRST_STEPS = 3
"""The first step compiles and has no optimizer state; the second has everything; the third shows that it repeats."""


class PlanCallback(TrainerCallback):  # type: ignore[misc]
    """Plans the run when it begins and compares its first steps; warns before the long sample or the evaluation.

    Args:
        job: what is planned; None reads it off the trainer's arguments and model. keys: of the job, which win.
        stop: end the training where the plan says that it will not fit.
        observations: a file of JSON lines to which each compared step is added, with the job and what was expected.
        server, client: a service to which each is sent, by its address (``CTXPLAN_SERVER`` by default) or by a client;
            see `ctxplan.observations.Observations`.
        peaks: what is seen, a seam for tests. planner: who answers.
    """

    def __init__(
        self,
        job: Job | None = None,
        *,
        stop: bool = False,
        observations: str | Path | None = None,
        client: Takes | None = None,
        server: str | None = None,
        peaks: Callable[[], Seen | None] = cuda_peaks,
        planner: Planner | None = None,
        **keys: Any,
    ) -> None:
        self.plan: RunPlan | None = None
        self.said: list[str] = []
        self._job = job
        self._keys = keys
        self._stop = stop
        self._observations = Observations(observations, client, server=server)
        self._peaks = peaks
        self._planner = planner or Planner()
        self._batches: Batches | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Plan the run, and say what will not fit."""
        model = parts.get("model")
        try:
            dataset = getattr(parts.get("train_dataloader"), "dataset", None)
            job = self._job or job_of(args, model, dataset, **self._keys)
            longest = longest_sample(dataset)
            self.plan = plan_run(job, self._planner, longest_tokens=longest, trained_bytes=trained_bytes(model))
        except CtxplanError as error:
            self._say(f"this run cannot be planned: {error}")
            return
        for sentence in before_the_run(self.plan):
            self._say(sentence)
        if self._stop and will_not_fit(self.plan):
            control.should_training_stop = True
        self._batches = Batches(model, job.per_device_train_batch_size)

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Compare one of the first steps with what is expected of the longest batch so far."""
        if self.plan is None or self._batches is None or state.global_step > FIRST_STEPS:
            return
        if state.global_step == FIRST_STEPS:
            self._batches.stop()
        seen = self._peaks()
        if seen is None:
            return
        expected = at_length(self.plan, self._planner, self._batches.length)
        for sentence in after_a_step(self.plan, seen, state.global_step, expected):
            self._say(sentence)
        beside = {"unplanned_bytes": self.plan.beyond(expected)}
        self._observations.add({"step": state.global_step, "peaks": seen._asdict(), **beside}, expected)

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Leave the model as it was, also after a run of fewer steps."""
        if self._batches is not None:
            self._batches.stop()

    def _say(self, sentence: str) -> None:
        """Once each, to the log and to whoever watches the terminal."""
        if sentence not in self.said:
            self.said.append(sentence)
            LOG.warning(sentence)
            print(f"ctxplan: {sentence}", file=sys.stderr)  # noqa: T201
