"""``ctxplan models`` and ``ctxplan gpus``."""

from __future__ import annotations

import typer

from app.cli.jobs import Json
from app.cli.output import print_json, show


def register(application: typer.Typer) -> None:
    """Add this file's commands."""
    application.command("models")(models)
    application.command("gpus")(gpus)


def models(as_json: Json = False) -> None:
    """List the models that are known without asking the Hub."""
    from app import catalogue

    items = catalogue.models()
    if as_json:
        print_json({"items": items, "next": None})
        return
    from app.render import render_models

    show(lambda _: [render_models(items)])


def gpus(as_json: Json = False) -> None:
    """List the GPUs that are known by name."""
    from app import catalogue

    items = catalogue.gpus()
    if as_json:
        print_json({"items": items, "next": None})
        return
    from app.render import render_gpus

    show(lambda _: [render_gpus(items)])
