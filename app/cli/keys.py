"""``ctxplan keys``: API keys of the service on this machine's database. A key is shown once, when it is made."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from app.cli.jobs import Json
from app.cli.output import leave, print_json, print_text

if TYPE_CHECKING:
    from app.keys.store import KeyStore, KeyView, Made
    from app.settings import Settings

Answer = TypeVar("Answer")
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="What the key is for, or who has it.")]
Id = Annotated[str, typer.Argument(metavar="ID", show_default=False, help="An id that `list` shows, or its beginning.")]
Scopes = Annotated[
    list[str],
    typer.Option("--scope", metavar="SCOPE", show_default=False, help="plan, measure, work or admin; several may be."),
]
Expires = Annotated[
    str | None, typer.Option("--expires", metavar="TIME", show_default=False, help="After how long: 90d, 12h, 2w.")
]
Grace = Annotated[str, typer.Option("--grace", metavar="TIME", help="How long the old key still opens: 0s, 24h.")]


def register(application: typer.Typer) -> None:
    """Add this file's commands."""
    group = typer.Typer(
        help="Make, list, replace and revoke the API keys of the service (CTXPLAN_DATABASE_URL).", no_args_is_help=True
    )
    for name, command in (("create", create), ("list", list_keys), ("rotate", rotate), ("revoke", revoke)):
        group.command(name)(command)
    application.add_typer(group, name="keys")


def create(name: Name, scopes: Scopes, expires: Expires = None, as_json: Json = False) -> None:
    """Make a key. Standard output has it, this once."""
    life = None if expires is None else seconds_of(expires, "expires")
    _tell_made(_with_keys(lambda keys: keys.create(name, scopes, expires_in=life)), as_json=as_json)


def list_keys(as_json: Json = False) -> None:
    """List the keys: never the keys themselves, but what each begins with."""
    found: Sequence[KeyView] = _with_keys(lambda keys: keys.list())
    if as_json:
        print_json({"items": [key_to_json(one) for one in found], "next": None})
        return
    now = datetime.now(UTC)
    for one in found:
        state = "valid" if one.is_valid(now) else "revoked" if one.revoked_at else "expired"
        used = f"last used {one.last_used_at:%Y-%m-%d %H:%M}" if one.last_used_at else "never used"
        until = f", until {one.expires_at:%Y-%m-%d %H:%M}" if one.expires_at else ""
        line = f"{one.id}  {one.prefix}...  {state}{until}  {','.join(one.scopes)}  {used}  {one.name}"
        typer.echo(line, err=True)
    if not found:
        typer.echo("There is no key: ctxplan keys create NAME --scope plan", err=True)


def rotate(id: Id, grace: Grace = "0s", as_json: Json = False) -> None:
    """Make a key of the same name, scopes and life, and revoke the old one, at once or after a grace."""
    wait = seconds_of(grace, "grace")
    _tell_made(_with_keys(lambda keys: keys.rotate(id, grace=wait)), as_json=as_json)


def revoke(id: Id, as_json: Json = False) -> None:
    """Let a key open nothing any more. A running service follows within seconds."""
    view: KeyView = _with_keys(lambda keys: keys.revoke(id))
    if as_json:
        print_json(key_to_json(view))
    else:
        typer.echo(f"Revoked: {view.prefix}... ({view.name}).", err=True)


def seconds_of(text: str, key: str) -> timedelta:
    """A time as a number and a unit: 90d, 12h, 30m, 45s, 2w. Raises InvalidKeyRequest."""
    from app.keys.errors import InvalidKeyRequest

    found = re.fullmatch(r"(\d{1,9})([smhdw])", text)
    if found is None:
        raise InvalidKeyRequest(f'"{text[:40]}" is no time', key=key, allowed="a number and s, m, h, d or w")
    return timedelta(seconds=int(found[1]) * UNITS[found[2]])


def key_to_json(view: KeyView) -> dict[str, Any]:
    """A key as plain JSON values, never the key itself."""
    from app.jobs.views import when

    return {
        "id": view.id,
        "name": view.name,
        "prefix": view.prefix,
        "scopes": list(view.scopes),
        "created_at": when(view.created_at),
        "last_used_at": when(view.last_used_at),
        "expires_at": when(view.expires_at),
        "revoked_at": when(view.revoked_at),
    }


def count_valid_keys(settings: Settings) -> int:
    """How many keys of a service's database open something. Raises CtxplanError where that cannot be read."""
    return asyncio.run(_on_keys(settings, lambda keys: keys.count_valid()))


def _tell_made(made: Made, *, as_json: bool) -> None:
    if as_json:
        print_json({"key": made.key, **key_to_json(made.view)})
        return
    print_text(made.key + "\n")
    view = made.view
    until = f", until {view.expires_at:%Y-%m-%d %H:%M} UTC" if view.expires_at else ""
    opens = f"Key {view.id} ({view.name}) opens {', '.join(view.scopes)}{until}."
    typer.echo(f"{opens} It is shown this once; keep it as a secret.", err=True)


def _with_keys(do: Callable[[KeyStore], Awaitable[Answer]]) -> Answer:
    try:
        from app.cli.serve import read_settings
    except ImportError as error:
        leave(f"the service is not installed ({error.name} is missing): pip install 'ctxplan[server]'")
    return asyncio.run(_on_keys(read_settings(), do))


async def _on_keys(settings: Settings, do: Callable[[KeyStore], Awaitable[Answer]]) -> Answer:
    from app.database import Database, migrate
    from app.keys.secret import read_secret
    from app.keys.store import KeyStore

    database = Database(settings.database_url)
    try:
        await migrate(database)
        return await do(KeyStore(database, secret=read_secret(settings), clock=lambda: datetime.now(UTC)))
    finally:
        await database.dispose()
