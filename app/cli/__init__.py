"""The ``ctxplan`` command: the same answers as the service, with no server running.

Exit codes: 0 fits or done, 1 does not fit, 2 bad usage or a job that cannot be planned, 3 uncertain. JSON
goes alone to standard output, and everything that a person reads goes to standard error.
"""

from __future__ import annotations

from typing import Annotated

import typer

from app.cli import (
    advise,
    calibrate,
    catalogue,
    fleet,
    keys,
    plan,
    preflight,
    probe,
    script,
    search,
    serve,
    tier,
    tokens,
    worker,
)
from app.cli.output import run
from ctxplan import __version__

application = typer.Typer(
    name="ctxplan",
    help="Plan the GPU memory and the context length of Unsloth fine-tuning runs before they start.",
    epilog="Exit codes: 0 fits or done, 1 does not fit, 2 bad usage or input, 3 uncertain.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for group in (
    plan,
    advise,
    preflight,
    script,
    catalogue,
    serve,
    probe,
    search,
    tier,
    tokens,
    calibrate,
    keys,
    worker,
    fleet,
):
    group.register(application)


def main() -> None:
    """Run the command line of this process."""
    run(application)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ctxplan {__version__}")
        raise typer.Exit


@application.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and leave.", callback=_print_version, is_eager=True),
    ] = False,
) -> None:
    """Plan the GPU memory and the context length of Unsloth fine-tuning runs before they start."""
