"""A point's job as the planner resolves it: what it leaves to the stack is filled in, what cannot be is refused."""

from __future__ import annotations

from dataclasses import replace

from ctxplan.models import resolve_model
from estimator.answer import prepare
from estimator.resolve import Run
from probes.points import Point


def run_of(point: Point) -> Run:
    """The point's job, resolved for the card that it names.

    Raises:
        CtxplanError: the job contradicts itself; its model, offline, or its GPU is not known. The key says which.
    """
    architecture = resolve_model(point.job.model, offline=True).architecture
    return prepare(replace(point.job, sequence_length=point.sequence_length), architecture).run
