"""``ctxplan plan``: what to change in a job."""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli.jobs import Json, Offline, takes_job
from app.cli.output import leave_with_verdict, print_json, show
from app.cli.planner import planner
from estimator import Job
from estimator.advise.plan import MOST_ASKED, MOST_PROPOSALS
from estimator.resolve import Trainer
from estimator.rules import Choice, Integer

TRAINERS: dict[str, Trainer] = {"sft": "sft", "loop": "loop"}

TrainerOption = Annotated[
    str | None,
    typer.Option(
        "--trainer", metavar="TEXT", help="What runs the steps, sft or loop; by default what the job suggests."
    ),
]
Limit = Annotated[int, typer.Option("--limit", help="At most so many proposals.", metavar="N")]


def register(application: typer.Typer) -> None:
    """Add this file's command."""
    application.command("plan")(takes_job(plan))


def plan(
    job: Job,
    trainer: TrainerOption = None,
    limit: Limit = MOST_PROPOSALS,
    as_json: Json = False,
    offline: Offline = False,
) -> None:
    """Find what to change in a job so that it fits, or to use the room that it leaves."""
    runs = None if trainer is None else TRAINERS[str(Choice(tuple(TRAINERS)).parse("trainer", trainer))]
    Integer(1, MOST_ASKED).parse("limit", limit)
    answer = planner(offline=offline).plan(job, trainer=runs, limit=limit)
    if as_json:
        print_json(answer.to_json())
    else:
        from app.render_advice import render_advice

        show(lambda paper: render_advice(answer, paper))
    leave_with_verdict(answer.best_verdict)
