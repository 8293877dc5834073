"""``ctxplan estimate`` and ``ctxplan max-context``."""

from __future__ import annotations

import typer

from app.cli.jobs import Json, Offline, takes_job
from app.cli.output import DOES_NOT_FIT, DONE, UNCERTAIN, leave_with_verdict, print_json, show
from app.cli.planner import planner
from estimator import Job


def register(application: typer.Typer) -> None:
    """Add this file's commands."""
    application.command("estimate")(takes_job(estimate))
    application.command("max-context")(takes_job(max_context))


def estimate(job: Job, as_json: Json = False, offline: Offline = False) -> None:
    """Estimate a job's GPU memory, term by term, and say whether it fits."""
    answer = planner(offline=offline).estimate(job)
    if as_json:
        print_json(answer.to_json())
    else:
        from app.render import render_estimate

        show(lambda paper: render_estimate(answer, paper))
    leave_with_verdict(answer.verdict)


def max_context(job: Job, as_json: Json = False, offline: Offline = False) -> None:
    """Find the longest context of a job; its own max_seq_length is ignored."""
    answer = planner(offline=offline).max_context(job)
    if as_json:
        print_json(answer.to_json())
    else:
        from app.render import render_max_context

        show(lambda paper: render_max_context(answer, paper))
    # Nothing safe, and yet something expected to fit: uncertain.
    raise typer.Exit(DONE if answer.safe else UNCERTAIN if answer.expected else DOES_NOT_FIT)
