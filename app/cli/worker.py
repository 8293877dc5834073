"""``ctxplan worker``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.jobs import Json
from app.cli.output import DONE, UNREACHABLE, leave, print_json
from app.cli.points import Cache, DeviceIndex
from app.cli.probe import need_the_probe
from ctxplan.variables import API_KEY, SERVER

if TYPE_CHECKING:
    from probes.worker.loop import Summary


Server = Annotated[
    str, typer.Option("--server", metavar="URL", envvar=SERVER, help="The service that gives jobs.", show_default=False)
]
MaxJobs = Annotated[int | None, typer.Option(min=1, metavar="N", help="Leave after N jobs.", show_default=False)]
IdleExit = Annotated[
    float | None, typer.Option(min=0, metavar="SECONDS", help="Leave after so long without a job.", show_default=False)
]
Once = Annotated[bool, typer.Option("--once", help="One job, or none where there is none now, and leave.")]
DrainTimeout = Annotated[
    float | None,
    typer.Option(
        min=0, metavar="SECONDS", help="After SIGTERM, stop the probe when so long is over.", show_default=False
    ),
]
SpoolFolder = Annotated[
    Path | None,
    typer.Option("--spool", metavar="DIR", help="Keep results here until they are taken.", show_default=False),
]
Cpu = Annotated[bool, typer.Option("--cpu", help="Work without a GPU: no byte of one is measured.")]
Id = Annotated[
    str | None, typer.Option("--id", metavar="ID", help="Instead of the host and its GPU.", show_default=False)
]
Name = Annotated[str | None, typer.Option("--name", metavar="NAME", help="For people.", show_default=False)]
ProbeCommand = Annotated[
    str | None,
    typer.Option(
        "--probe-command", metavar="COMMAND", help="For tests: run this instead of the probe.", show_default=False
    ),
]


def register(application: typer.Typer) -> None:
    """Add this file's command."""
    application.command("worker")(worker)


def worker(
    server: Server,
    max_jobs: MaxJobs = None,
    idle_exit: IdleExit = None,
    once: Once = False,
    drain_timeout: DrainTimeout = None,
    spool: SpoolFolder = None,
    device_index: DeviceIndex = None,
    cache: Cache = None,
    cpu: Cpu = False,
    id: Id = None,
    name: Name = None,
    as_json: Json = False,
    probe_command: ProbeCommand = None,
) -> None:
    """Lend this machine's GPU to a service: lease a point, measure it, send what it gave, and ask for the next.

    Needs an API key with the scope work in CTXPLAN_API_KEY where the service asks for one. SIGTERM: finish the point
    and leave; a second one: give it back and leave at once.
    """
    if cpu and device_index is not None:
        leave("--cpu and --device-index: give one of them")
    need_the_probe()
    from probes.worker.loop import Until
    from probes.worker.runner import Setup
    from probes.worker.start import lend

    summary = lend(
        server,
        os.environ.get(API_KEY) or None,
        setup=Setup(
            cpu=cpu,
            device_index=device_index,
            cache_folder=cache,
            child=tuple(shlex.split(probe_command)) if probe_command else (),
        ),
        until=Until(max_jobs=1 if once else max_jobs, idle_exit_seconds=0.0 if once else idle_exit),
        drain_timeout_seconds=drain_timeout,
        spool_folder=spool,
        id=id,
        name=name,
        say=say,
    )
    told(summary)
    if as_json:
        print_json(summary.to_json())
    raise typer.Exit(UNREACHABLE if summary.unreachable else DONE)


def say(line: str) -> None:
    """A line for whoever looks at the worker."""
    typer.echo(f"ctxplan worker: {line}", err=True)


def told(summary: Summary) -> None:
    """What was done, in a line."""
    counted = {key: value for key, value in summary.to_json().items() if isinstance(value, int) and value}
    counted.pop("unreachable", None)
    say("left: " + (", ".join(f"{value} {key.replace('_', ' ')}" for key, value in counted.items()) or "nothing done"))
    if summary.waiting:
        say(f"{summary.waiting} results wait in the spool: start a worker with the same spool to send them")
