"""``ctxplan serve``."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.output import leave
from app.listen import listen

if TYPE_CHECKING:
    from app.settings import Settings


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
        import uvicorn

        from app.main import create_app
    except ImportError as error:
        leave(f"the service is not installed ({error.name} is missing): pip install 'ctxplan[server]'")
    # The operator's own token would read private repositories for whoever asks.
    os.environ.setdefault("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    settings = _settings(host, port)
    try:
        # Before the server starts, so that a port in use is a usage error and not a failed server.
        listening = listen(settings.host, settings.port)
    except OSError as error:
        leave(f"cannot listen on {settings.host}:{settings.port}: {error.strerror or error}")
    address = listening.getsockname()
    shown = f"[{address[0]}]" if ":" in address[0] else address[0]
    typer.echo(f"ctxplan: serving on http://{shown}:{address[1]}", err=True)
    # log_config None: the service writes its own lines. The server's own warnings still reach standard error.
    config = uvicorn.Config(
        create_app(settings), log_config=None, log_level="warning", access_log=False, server_header=False
    )
    # What start-up made lives as long as the process: collections need not walk it again for each few requests.
    gc.collect()
    gc.freeze()
    uvicorn.Server(config).run(sockets=[listening])


def _settings(host: str | None, port: int | None) -> Settings:
    from pydantic import ValidationError

    from app.settings import Settings

    try:
        settings = Settings()
    except ValidationError as error:
        fault = error.errors()[0]
        leave(f"CTXPLAN_{'_'.join(str(part) for part in fault['loc']).upper()}: {fault['msg']}")
    given = {"host": host, "port": port}
    return settings.model_copy(update={key: value for key, value in given.items() if value is not None})
