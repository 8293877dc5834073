"""``ctxplan script``."""

from __future__ import annotations

import typer

from app.cli.jobs import Offline, takes_job
from app.cli.output import print_text
from app.cli.planner import planner
from app.scripts import write_script
from estimator import Job


def register(application: typer.Typer) -> None:
    """Add this file's command."""
    application.command("script")(takes_job(script))


def script(job: Job, offline: Offline = False) -> None:
    """Print a complete script that runs the job: model, adapters, trainer and the environment it assumes."""
    planning = planner(offline=offline)
    facts = planning.facts(job.model)
    answer = planning.estimate(job, facts)
    print_text(write_script(job, answer, facts.architecture).text)
    if answer.verdict != "fits":
        typer.echo(f"ctxplan: note: the job's verdict is {answer.verdict} (ctxplan estimate has the terms)", err=True)
