"""What keys are hashed with: without it, whoever reads the database can check no guess."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from app.database.url import read_url
from app.keys.errors import SecretUnavailable
from app.settings import Settings

LEAST_BYTES = 32


def read_secret(settings: Settings) -> bytes:
    """The secret of the settings, or the file's, which is made where there is none. May read and write the disk.

    Raises:
        SecretUnavailable: the file cannot be read or made, is too short, or others may read it; or the database is for
            several replicas, and none was set.
    """
    if settings.keys_secret is not None:
        return settings.keys_secret.get_secret_value().encode()
    file = settings.keys_secret_file or _beside_the_database(settings)
    try:
        if not file.exists():
            _make(file)
        return _read(file)
    except OSError as error:
        why = f"{file}: the secret of the API keys cannot be kept there: {error.strerror or error}"
        raise SecretUnavailable(why, key="keys_secret_file") from None


def _beside_the_database(settings: Settings) -> Path:
    url = read_url(settings.database_url)
    if not url.drivername.startswith("sqlite"):
        raise SecretUnavailable(
            "the replicas of a PostgreSQL database share the secret of their API keys, and none is set",
            key="keys_secret",
            allowed="CTXPLAN_KEYS_SECRET of 32 or more characters, or CTXPLAN_KEYS_SECRET_FILE",
        )
    return Path(f"{url.database}.secret")


def _make(file: Path) -> None:
    """Put a whole file in its place, or find that another process has."""
    draft = file.with_name(f".{file.name}.{os.getpid()}.{secrets.token_hex(4)}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(fd, "w", encoding="ascii") as opened:
            opened.write(secrets.token_hex(LEAST_BYTES) + "\n")
            opened.flush()
            os.fsync(opened.fileno())
        with suppress(FileExistsError):
            os.link(draft, file)
    finally:
        draft.unlink()


def _read(file: Path) -> bytes:
    with file.open("rb") as opened:
        others = os.fstat(opened.fileno()).st_mode & 0o077
        text = opened.read().strip()
    if others:
        raise SecretUnavailable(f"{file}: others may read it", key="keys_secret_file", allowed="mode 0600")
    if len(text) < LEAST_BYTES:
        raise SecretUnavailable(f"{file}: is too short", key="keys_secret_file", allowed=f"{LEAST_BYTES} or more bytes")
    return text
