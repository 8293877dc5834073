"""``ctxplan calibrate start``: has a service measure the points that pin a model, and fit a calibration to them."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from app.cli.design import Batches, Checkpointing, takes_model
from app.cli.jobs import Json
from app.cli.output import DONE, UNCERTAIN, print_json
from ctxplan.variables import SERVER
from estimator import Job, job_to_json

LOCAL = "http://127.0.0.1:8000"

Server = Annotated[
    str, typer.Option("--server", metavar="URL", envvar=SERVER, help="The service that gives jobs to workers.")
]
TimeLimit = Annotated[
    float, typer.Option("--time-limit", metavar="SECONDS", min=1, max=86_400, help="On the GPU, all points.")
]
Activate = Annotated[
    str, typer.Option("--activate", metavar="WHEN", help="if_better, always or never: whether it answers at once.")
]
Priority = Annotated[int, typer.Option("--priority", min=-1000, max=1000, help="Higher ones are measured first.")]
MeasurementId = Annotated[
    int, typer.Argument(metavar="ID", min=1, show_default=False, help="The measurement's number.")
]
Why = Annotated[str | None, typer.Option("--why", metavar="TEXT", show_default=False, help="Kept with it.")]
Watch = Annotated[bool, typer.Option("--watch", help="Follow the campaign until it has ended.")]


def register(group: typer.Typer) -> None:
    """Add this file's command."""
    group.command("start")(takes_model(start))
    group.command("release")(release)


def start(
    job: Job,
    server: Server = LOCAL,
    checkpointing: Checkpointing = None,
    batches: Batches = None,
    time_limit: TimeLimit = 300.0,
    activate: Activate = "if_better",
    priority: Priority = 0,
    watch: Watch = False,
    as_json: Json = False,
) -> None:
    """Have the workers of a service measure the points that pin a model, and fit a calibration to them.

    Needs an API key in CTXPLAN_API_KEY where the service asks for one. With --watch, exit code 3 where no calibration
    came of it; 4 where the service cannot be reached.
    """
    from app.cli.service import answer, client_of, followed

    body: dict[str, Any] = {
        "calibrate": job_to_json(job),
        "checkpointing": _words(checkpointing),
        "batches": _words(batches),
        "time_limit_seconds": time_limit,
        "activate": activate,
        "priority": priority,
    }
    with client_of(server) as client:
        begun = answer(client.post("/v1/probe-jobs", json=body))
        campaign = begun["campaign"]
        typer.echo(f"Campaign {campaign}: {len(begun['items'])} points are queued at {server}.", err=True)
        last = answer(client.get(f"/v1/campaigns/{campaign}"))
        if watch:
            for last in followed(client, campaign):
                typer.echo(told(last), err=True)
    if as_json:
        print_json(last)
    raise typer.Exit(DONE if not watch or last["state"] == "done" else UNCERTAIN)


def release(id: MeasurementId, why: Why = None, server: Server = LOCAL, as_json: Json = False) -> None:
    """Have a service believe a measurement that it has quarantined.

    A campaign that had failed for want of it is fitted again. Needs an API key with the scope admin in CTXPLAN_API_KEY
    where the service asks for one.
    """
    from app.cli.service import answer, client_of

    with client_of(server) as client:
        body = {} if why is None else {"why": why}
        found = answer(client.post(f"/v1/measurements/{id}/release", json=body))
    typer.echo(f"Measurement {found['id']} of job {found['job']} is {found['state']}.", err=True)
    if as_json:
        print_json(found)


def told(campaign: dict[str, Any]) -> str:
    """Where a campaign stands, in a line."""
    jobs = ", ".join(f"{count} {state}" for state, count in campaign["jobs"].items())
    outcome = campaign["outcome"]
    if outcome is None:
        return f"{campaign['state']}: {jobs}"
    if outcome["calibration"] is None:
        return f"{campaign['state']}: {outcome['why']}"
    use = "active from now on" if outcome["activated"] else "not activated"
    return f"{campaign['state']}: {outcome['calibration']} of {outcome['points']} points, {use}: {outcome['why']}"


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]
