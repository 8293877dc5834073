"""``ctxplan fleet ray``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from app.cli.jobs import Json
from app.cli.output import BAD_INPUT, DONE, UNREACHABLE, leave, print_json
from app.cli.points import Cache
from ctxplan.variables import API_KEY, SERVER

Server = Annotated[
    str, typer.Option("--server", metavar="URL", envvar=SERVER, help="The service that gives jobs.", show_default=False)
]
Address = Annotated[
    str, typer.Option("--address", metavar="ADDR", envvar="RAY_ADDRESS", help="The cluster: HOST:PORT, or auto.")
]
Gpu = Annotated[
    str | None,
    typer.Option(
        "--gpu", metavar="NAME", help="GPUs of this kind alone: ctxplan gpus, or Ray's name.", show_default=False
    ),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, metavar="N", help="At most so many at once.", show_default=False),
]
MaxJobs = Annotated[
    int | None, typer.Option("--max-jobs", min=1, metavar="N", help="Leave after N jobs, of all.", show_default=False)
]
IdleExit = Annotated[
    float | None,
    typer.Option(
        "--idle-exit", min=0, metavar="SECONDS", help="Leave after so long without a job.", show_default=False
    ),
]
State = Annotated[
    Path | None,
    typer.Option("--state", metavar="DIR", help="For results that wait, on each node.", show_default=False),
]
Cpu = Annotated[bool, typer.Option("--cpu", help="Work without GPUs: no byte of one is measured.")]
ProbeCommand = Annotated[str | None, typer.Option("--probe-command", hidden=True)]


def register(group: typer.Typer) -> None:
    """Add this file's command."""
    group.command("ray")(ray)


def ray(
    server: Server,
    address: Address = "auto",
    gpu: Gpu = None,
    workers: Workers = None,
    max_jobs: MaxJobs = None,
    idle_exit: IdleExit = None,
    state: State = None,
    cache: Cache = None,
    cpu: Cpu = False,
    as_json: Json = False,
    probe_command: ProbeCommand = None,
) -> None:
    """Work for a service with every GPU of a Ray cluster: a task for each job, on a whole GPU, as many as fit.

    Needs an API key with the scope work in CTXPLAN_API_KEY where the service asks for one. SIGTERM: finish the points
    and leave; a second one: give them back and leave.
    """
    if cpu and gpu is not None:
        leave("--cpu and --gpu: give one of them")
    from probes.fleet.accelerators import accelerator_type
    from probes.fleet.driver import Fleet, run
    from probes.fleet.errors import ClusterAway
    from probes.fleet.life import LifeOrder
    from probes.fleet.order import check_server, is_loopback

    check_server(server)
    if is_loopback(server):
        say(f"{server} is, on each node, that node itself")
    life = LifeOrder(
        server=server,
        api_key=os.environ.get(API_KEY) or None,
        cpu=cpu,
        cache=None if cache is None else str(cache.expanduser().absolute()),
        state=None if state is None else str(state.expanduser().absolute()),
        child=tuple(shlex.split(probe_command)) if probe_command else (),
    )
    fleet = Fleet(
        address=address,
        life=life,
        accelerator=accelerator_type(gpu) if gpu else None,
        most=workers,
        max_jobs=max_jobs,
        idle_exit_seconds=idle_exit,
    )
    try:
        report = run(fleet, say=say)
    except ClusterAway as error:
        leave(str(error), code=UNREACHABLE)
    counted = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in report.to_json().items() if value)
    say(f"left: {counted or 'nothing done'}")
    if as_json:
        print_json(report.to_json())
    if report.last_fault is not None and not report.summed["leased"]:
        leave(f"no life could work: {report.last_fault}", code=BAD_INPUT)
    raise typer.Exit(UNREACHABLE if report.unreachable else DONE)


def say(line: str) -> None:
    """A line for whoever looks at the fleet."""
    typer.echo(f"ctxplan fleet: {line}", err=True)
