"""Reads ``CTXPLAN_DATABASE_URL``."""

from __future__ import annotations

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from app.database.errors import InvalidDatabaseUrl

KEY = "CTXPLAN_DATABASE_URL"
DRIVERS = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
"""What may be written, and the driver that serves it: one for each database."""
ALLOWED = "sqlite+aiosqlite:///FILE or postgresql+psycopg://USER:PASSWORD@HOST/NAME"


def read_url(text: str) -> URL:
    """The URL with its driver filled in.

    Raises:
        InvalidDatabaseUrl: it is none, of another database or driver, or of a SQLite database in memory, of which
            every connection would have its own.
    """
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        raise InvalidDatabaseUrl("is not a database URL", key=KEY, allowed=ALLOWED) from None
    driver = DRIVERS.get(url.drivername)
    if driver is None:
        raise InvalidDatabaseUrl(f"{url.drivername} is not supported", key=KEY, allowed=ALLOWED)
    if driver.startswith("sqlite") and _in_memory(url):
        raise InvalidDatabaseUrl("a database in memory is lost with its connection", key=KEY, allowed=ALLOWED)
    return url.set(drivername=driver)


def without_password(text: str) -> str:
    """The URL as a log may have it: what the database is and where, without password and parameters. Raises
    InvalidDatabaseUrl."""
    url = read_url(text)
    bare = URL.create(url.drivername, url.username, host=url.host, port=url.port, database=url.database)
    return bare.render_as_string()


def _in_memory(url: URL) -> bool:
    name = url.database or ""
    return name in ("", ":memory:") or name.startswith("file:") or url.query.get("mode") == "memory"
