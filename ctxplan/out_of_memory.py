"""An out-of-memory explained: the plan beside what was seen when the memory ended.

    with explain_out_of_memory(trainer):
        trainer.train()

Needs neither transformers nor a trainer: a bare loop gives its job.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ctxplan.failure import is_out_of_memory, numbers_of, phase_of
from ctxplan.live import cuda_peaks, job_of
from ctxplan.observations import Observations, Takes
from ctxplan.planning import Planner
from ctxplan.watching import explain
from estimator import Job, job_to_json, parse_job


@contextmanager
def explain_out_of_memory(
    run: Any,
    *,
    planner: Planner | None = None,
    observations: str | Path | None = None,
    client: Takes | None = None,
    server: str | None = None,
    **keys: Any,
) -> Iterator[None]:
    """Where the memory ends inside, print the plan beside what was seen, and raise the same error with it as a note.

    Args:
        run: a Trainer, or a `Job` (or its JSON). keys: of the job, which win over what the run says.
        observations, client, server: as `ctxplan.observations.Observations` has them.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            _explain(error, run, planner or Planner(), Observations(observations, client, server=server), keys)
        raise


def _explain(error: Exception, run: Any, planner: Planner, observations: Observations, keys: Mapping[str, Any]) -> None:
    """Nothing in here may hide the error that it explains."""
    text = ""
    try:
        job, seen = _job(run, keys), cuda_peaks()
        text = explain(error, job, planner, seen)
        ended = {"outcome": "out_of_memory", "phase": phase_of(error), "allocator": numbers_of(error)._asdict()}
        observations.add({**ended, "peaks": seen._asdict() if seen else None}, planner.estimate(job))
    except Exception as refusal:
        text = text or f"ctxplan: the memory ended, and the run cannot be planned: {refusal}"
    print(text, file=sys.stderr)  # noqa: T201
    error.add_note(text)


def _job(run: Any, keys: Mapping[str, Any]) -> Job:
    if isinstance(run, Job):
        return parse_job({**job_to_json(run), **keys}) if keys else run
    if isinstance(run, Mapping):
        return parse_job({**run, **keys})
    return job_of(run.args, run.model, getattr(run, "train_dataset", None), **keys)
