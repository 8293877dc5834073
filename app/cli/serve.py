"""``ctxplan serve``."""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
from contextlib import suppress
from socket import socket
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from app.cli.output import leave
from app.listen import listen
from ctxplan import __version__

if TYPE_CHECKING:
    from fastapi import FastAPI

    from app.settings import Settings

STOP_SECONDS = 10
TURN_SECONDS = 0.0005
KEEP_ALIVE_SECONDS = 75


def register(application: typer.Typer) -> None:
    """Add this file's command."""
    application.command("serve")(serve)


def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (CTXPLAN_HOST; 127.0.0.1).", show_default=False)
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port; 0 takes a free one (CTXPLAN_PORT; 8000).", show_default=False),
    ] = None,
) -> None:
    """Serve the plans over HTTP, with interactive documentation at /docs."""
    try:
        import uvicorn  # noqa: F401

        from app.hub_hosts import set_environment
        from app.main import create_app
    except ImportError as error:
        leave(f"the service is not installed ({error.name} is missing): pip install 'ctxplan[server]'")
    set_environment()
    settings = read_settings(host, port)
    _check_database(settings)
    _check_calibrations(settings)
    try:
        # Before the server starts, so that a port in use is a usage error and not a failed server.
        listening = listen(settings.host, settings.port)
    except OSError as error:
        leave(f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}")
    # To be told to leave is no failure. While it serves, the server takes the signals, ends what is open, and hands
    # them on to these.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave_stopped)
    if settings.allow_hub:
        _hold_to_hosts(settings)
    _log_libraries(settings)
    _run(create_app(settings), listening, settings)


def _log_libraries(settings: Settings) -> None:
    """What the server and the other libraries have to say is a line of the service's log as well."""
    from app.logs import FromLibraries, make_logger

    logging.getLogger().addHandler(FromLibraries(make_logger(settings.log_level)))


def _hold_to_hosts(settings: Settings) -> None:
    from app.hub_hosts import hold_to_hosts
    from app.logs import make_logger

    log = make_logger(settings.log_level)
    hold_to_hosts(
        settings.hub_hosts,
        refused=lambda host: log.warning("the Hub sent a look-up on to a host that is not allowed", host=host),
    )


def _run(app: FastAPI, listening: socket, settings: Settings) -> None:
    """Serve until the process is told to stop, and then end what is still open."""
    import uvicorn

    from app.logs import make_logger
    from app.telemetry import traced

    # log_config None: the service writes its own lines, and the server's warnings with them.
    config = uvicorn.Config(
        app,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        # Longer than clients and proxies (5 to 60 s) keep a connection that they do not use: one that is closed just as
        # they ask on it gives no answer.
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        # The longest that a request may still take once the server is to stop.
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    # What start-up made lives as long as the process: collections need not walk it again for each few requests.
    gc.collect()
    gc.freeze()
    # Look-ups and the reading of configs are in threads, and the event loop has to ask each for its turn several times
    # in a request: it waits so long for it at most.
    sys.setswitchinterval(TURN_SECONDS)

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                _say_serving(listening, settings)

        async def shutdown(self, sockets: list[socket] | None = None) -> None:
            # Who follows a campaign's events would keep the process for as long as it measures.
            app.state.stopping.set()
            await super().shutdown(sockets)
            with suppress(OSError):  # whoever read the log may have left first
                make_logger(settings.log_level).info("stopped")

    with traced(app):
        Server(config).run(sockets=[listening])


def _say_serving(listening: socket, settings: Settings) -> None:
    """Where it serves, once it does. A line of the log at every level, since port 0 is told nowhere else; for a person
    at a terminal, words."""
    from app.database.url import without_password
    from app.logs import make_logger

    host, port = listening.getsockname()[:2]
    address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
    if sys.stderr.isatty():
        typer.echo(f"ctxplan: serving on {address}", err=True)
        return
    database = without_password(settings.database_url)
    make_logger("info").info("serving", address=address, version=__version__, database=database)


def _leave_stopped(*_: object) -> NoReturn:
    sys.exit(0)


def _check_database(settings: Settings) -> None:
    """Leave where the database's URL is none, and where keys are needed for an address that others reach and none opens
    anything: a service that answers nobody, or everybody, is not what was asked for. Planning on loopback needs no
    database: one that cannot be opened is the queue's problem alone."""
    from app.cli.keys import count_valid_keys
    from app.database.url import read_url
    from app.security import is_loopback, keys_are_required

    read_url(settings.database_url)
    if is_loopback(settings.host) or not keys_are_required(settings.host, settings.require_keys):
        return
    if count_valid_keys(settings) == 0:
        leave(
            f"{settings.host} is reached by others, and there is no API key: make one with ctxplan keys create NAME "
            "--scope plan, or listen on 127.0.0.1; CTXPLAN_REQUIRE_KEYS=false leaves it to what stands in front"
        )


def _check_calibrations(settings: Settings) -> None:
    """Leave where calibrations are to be kept in a place that cannot be: nothing would say so until one is made."""
    folder = settings.calibrations
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        why = "" if os.access(folder, os.R_OK | os.W_OK | os.X_OK) else "cannot be written"
    except OSError as error:
        why = f"cannot be made: {error.strerror or error}"
    if why:
        leave(f"CTXPLAN_CALIBRATIONS: {folder} {why} (allowed: a directory that the service can make and write to)")


def read_settings(host: str | None = None, port: int | None = None) -> Settings:
    """The service's settings. Leaves with what is wrong where one of them is none."""
    from pydantic import ValidationError

    from app.settings import Settings, misspelt, words_of

    if wrong := misspelt(os.environ):
        leave(f"{wrong[0]}: no setting has this name; did you mean {wrong[1]}?")
    try:
        settings = Settings()
    except ValidationError as error:
        leave(words_of(error))
    except OSError as error:  # a file of secrets_dir
        leave(f"{error.filename}: cannot be read: {error.strerror}")
    given = {"host": host, "port": port}
    return settings.model_copy(update={key: value for key, value in given.items() if value is not None})
