"""In a training run: a callback that compares the plan with the first steps, and a context that explains an
out-of-memory.

    trainer = SFTTrainer(..., callbacks=[PlanCallback()])
    with explain_out_of_memory(trainer):
        trainer.train()

Importing this file imports transformers; `ctxplan` alone does not.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ctxplan.job_from import NotModelled, job_from
from ctxplan.planning import Planner
from ctxplan.watching import RunPlan, Seen, after_a_step, before_the_run, explain, is_out_of_memory, plan_run
from estimator import CtxplanError, Job

LOG = logging.getLogger("ctxplan")
FIRST_STEPS = 3
"""The first step compiles and has no optimizer state; the second has everything; the third shows that it repeats."""
MOST_SAMPLES = 10_000_000


def cuda_peaks() -> Seen | None:
    """Torch's peaks of the first CUDA device; None where there is none."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return Seen(torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved())


class PlanCallback(TrainerCallback):  # type: ignore[misc]
    """Plans the run when it begins and compares its first steps; warns before the long sample or the evaluation.

    Args:
        job: what is planned; None reads it off the trainer's arguments and model. keys: of the job, which win.
        stop: end the training where the plan says that it will not fit.
        observations: a file of JSON lines to which each compared step is added, with the job and the estimate.
        peaks: what is seen, a seam for tests. planner: who answers.
    """

    def __init__(
        self,
        job: Job | None = None,
        *,
        stop: bool = False,
        observations: str | Path | None = None,
        peaks: Callable[[], Seen | None] = cuda_peaks,
        planner: Planner | None = None,
        **keys: Any,
    ) -> None:
        self.plan: RunPlan | None = None
        self.said: list[str] = []
        self._job = job
        self._keys = keys
        self._stop = stop
        self._observations = Path(observations) if observations else None
        self._peaks = peaks
        self._planner = planner or Planner()

    def on_train_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Plan the run, and say what will not fit."""
        try:
            job = self._job or job_of(args, parts.get("model"), **self._keys)
            longest = longest_sample(getattr(parts.get("train_dataloader"), "dataset", None))
            self.plan = plan_run(job, self._planner, longest_tokens=longest)
        except CtxplanError as error:
            self._say(f"this run cannot be planned: {error}")
            return
        for sentence in before_the_run(self.plan):
            self._say(sentence)
        if self._stop and any(found and found.verdict == "does_not_fit" for found in _all(self.plan)):
            control.should_training_stop = True

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Compare one of the first steps."""
        if self.plan is None or state.global_step > FIRST_STEPS:
            return
        seen = self._peaks()
        if seen is None:
            return
        for sentence in after_a_step(self.plan, seen, state.global_step):
            self._say(sentence)
        self._keep(seen, state.global_step)

    def _say(self, sentence: str) -> None:
        """Once each, to the log and to whoever watches the terminal."""
        if sentence not in self.said:
            self.said.append(sentence)
            LOG.warning(sentence)
            print(f"ctxplan: {sentence}", file=sys.stderr)  # noqa: T201

    def _keep(self, seen: Seen, step: int) -> None:
        if self._observations is None or self.plan is None:
            return
        typical = self.plan.typical.to_json()
        observation = {
            "step": step,
            **seen._asdict(),
            "expected": typical["peak_allocated_bytes"],
            "calibration": typical["calibration"],
            "job": typical["job"],
            "seen_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with self._observations.open("a", encoding="utf-8") as file:
            file.write(json.dumps(observation) + "\n")


@contextmanager
def explain_out_of_memory(run: Any, *, planner: Planner | None = None, **keys: Any) -> Iterator[None]:
    """Where the memory ends inside, print the plan beside what was seen, and raise the same error with it as a note.

    Args:
        run: a Trainer, or a `Job` (or its JSON). keys: of the job, which win over what the trainer says.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            _explain(error, run, planner or Planner(), keys)
        raise


def job_of(args: Any, model: Any, **keys: Any) -> Job:
    """The job of a trainer's arguments and model, on the card that is there."""
    card = _card()
    with warnings.catch_warnings():
        warnings.simplefilter("once", NotModelled)
        return job_from(*(part for part in (args, model) if part is not None), **({"gpu": card} if card else {}) | keys)


def longest_sample(dataset: Any) -> int | None:
    """Tokens of the longest row of a tokenised dataset; None where its rows are not known without reading them one
    by one."""
    names = getattr(dataset, "column_names", None) or ()
    if "input_ids" not in names or len(dataset) > MOST_SAMPLES:
        return None
    arrow = getattr(dataset, "data", None)
    if arrow is None or getattr(dataset, "_indices", None) is not None:
        return max((len(row) for row in dataset["input_ids"]), default=None)
    import pyarrow.compute

    longest = pyarrow.compute.max(pyarrow.compute.list_value_length(arrow.column("input_ids")))
    return longest.as_py()  # type: ignore[no-any-return]


def _explain(error: Exception, run: Any, planner: Planner, keys: Mapping[str, Any]) -> None:
    try:
        if isinstance(run, Job):
            job = run
        elif isinstance(run, Mapping):
            from estimator import parse_job

            job = parse_job({**run, **keys})
        else:
            job = job_of(run.args, run.model, **keys)
        text = explain(error, job, planner, cuda_peaks())
    except Exception as refusal:
        text = f"ctxplan: the memory ended, and the run cannot be planned: {refusal}"
    print(text, file=sys.stderr)  # noqa: T201
    error.add_note(text)


def _card() -> dict[str, Any] | None:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(0)
    return {"name": properties.name, "total_bytes": properties.total_memory}


def _all(plan: RunPlan) -> tuple[Any, ...]:
    return plan.typical, plan.longest, plan.evaluation
