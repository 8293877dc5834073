"""What each worker of a fleet is told, wherever it runs."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import httpx

from ctxplan.client.wire import base_address
from ctxplan.variables import API_KEY
from probes.fleet.errors import FleetOptionError

MOST_WORKERS = 1000
LEAST_GRACE_SECONDS = 30
GRACE_SECONDS = 120
LEAVE_SECONDS = 20
"""Of the grace: for the probe to be gone, the point to be given back and the process to end."""
SECRET = re.compile(r"ctxp_[A-Za-z0-9_-]{8,}")
"""How an API key begins (`app.keys`): none of these may be written into a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One worker's part.

    Attributes:
        server: of the service, without a user or a password. max_jobs, idle_exit_seconds: as of ``ctxplan worker``, for
            each. grace_seconds: between the cluster's SIGTERM and its SIGKILL. cpu: work without a GPU.

    Raises:
        FleetOptionError, ServiceError: on creation, for what cannot be.
    """

    server: str
    workers: int = 1
    max_jobs: int | None = None
    idle_exit_seconds: float | None = None
    grace_seconds: int = GRACE_SECONDS
    cpu: bool = False
    probe_command: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        check_server(self.server)
        _check_whole("workers", self.workers, 1, MOST_WORKERS)
        _check_whole("grace", self.grace_seconds, LEAST_GRACE_SECONDS, 86_400)
        if self.max_jobs is not None:
            _check_whole("max_jobs", self.max_jobs, 1, 1_000_000)
        if self.idle_exit_seconds is not None and not 0 <= self.idle_exit_seconds < 1e9:
            raise FleetOptionError("is no time", key="idle_exit", allowed="seconds, 0 or more")

    @property
    def drain_seconds(self) -> int:
        """How long a worker may go on with its point after SIGTERM; then it gives the point back, untouched."""
        return self.grace_seconds - LEAVE_SECONDS

    def arguments(self) -> list[str]:
        """The command after ``ctxplan``. The key is never among them: it is in `API_KEY`."""
        words = ["worker", "--server", self.server, "--drain-timeout", str(self.drain_seconds)]
        if self.max_jobs is not None:
            words += ["--max-jobs", str(self.max_jobs)]
        if self.idle_exit_seconds is not None:
            words += ["--idle-exit", f"{self.idle_exit_seconds:g}"]
        if self.cpu:
            words.append("--cpu")
        if self.probe_command is not None:
            words += ["--probe-command", self.probe_command]
        return words


def check_server(server: str) -> None:
    """Raise FleetOptionError or ServiceError unless this is a service's address, and nothing but that."""
    address = base_address(server)
    if address.userinfo or address.query or address.fragment:
        allowed = f"an address alone: a key goes into {API_KEY}"
        raise FleetOptionError("has more than an address", key="server", allowed=allowed)
    check_no_secret("server", server)
    if not server.isascii() or not server.isprintable() or " " in server:
        raise FleetOptionError("cannot be written into a script", key="server", allowed="printable ASCII, no spaces")


def is_loopback(server: str) -> bool:
    """Whether the address means, on every machine, that machine itself."""
    host = httpx.URL(server).host
    return host in ("localhost", "::1") or host.startswith("127.")


def check_text(key: str, text: str | None, pattern: str, allowed: str) -> None:
    """Raise FleetOptionError unless the text is None or of the form; never shows one that holds an API key."""
    if text is None:
        return
    check_no_secret(key, text)
    if not re.fullmatch(pattern, text):
        raise FleetOptionError(f"{text[:80]!r} is not accepted", key=key, allowed=allowed)


def check_no_secret(key: str, text: str) -> None:
    """Raise FleetOptionError where the text has an API key in it."""
    if SECRET.search(text):
        raise FleetOptionError("has an API key in it", key=key, allowed=f"no secret: the key goes into {API_KEY}")


def _check_whole(key: str, number: int, least: int, most: int) -> None:
    if not least <= number <= most:
        raise FleetOptionError(f"{number} is not accepted", key=key, allowed=f"{least} to {most}")
