"""What was seen of a run beside what was planned: kept as JSON lines, and sent to a service.

A training run never ends for an observation, and never waits for one longer than `SECONDS`. What a service did not take
is kept in the user's state directory, and goes to it with the first observation of a later run that reaches it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from ctxplan.shared_files import append_lines, content_of, locked, whole_lines
from ctxplan.variables import API_KEY, SERVER
from estimator import CtxplanError, Estimate
from estimator.calibration.evidence import DECISIVE

LOG = logging.getLogger("ctxplan")
SECONDS = 3.0
"""For each part of a request; it is sent once. A training step waits for it, and the GPUs beside it."""
MOST_AT_ONCE = 100
MOST_KEPT_BYTES = 2**22
"""A service that is gone for good does not fill the disk."""


class Takes(Protocol):
    """What observations are sent by: `ctxplan.Client`, among others."""

    def add_observations(self, observations: Sequence[Mapping[str, Any]]) -> object:
        """Keep them. Raises CtxplanError where they were not taken."""


class Observations:
    """Where the observations of one run go.

    Args:
        file: of JSON lines, to which each is added. server: the address of a service, by default that of
            ``CTXPLAN_SERVER``; "" for none. Its key is that of ``CTXPLAN_API_KEY``. client: in place of a server.
        unsent: a file for what the service did not take, by default in the user's state directory. clock: the time.
            run: what all observations of the run have in common.
    """

    def __init__(
        self,
        file: str | Path | None = None,
        client: Takes | None = None,
        *,
        server: str | None = None,
        unsent: Path | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        run: str | None = None,
    ) -> None:
        self._file = Path(file) if file else None
        self._client = client
        self._server = (os.environ.get(SERVER, "") if server is None else server) if client is None else ""
        self._unsent = unsent or default_unsent(self._server)
        self._clock = clock
        self._run = run or uuid4().hex
        self._away = False
        self._told = False

    @property
    def is_wanted(self) -> bool:
        """Whether an observation goes anywhere."""
        return self._file is not None or self._client is not None or bool(self._server)

    def add(self, seen: Mapping[str, Any], planned: Estimate) -> None:
        """Keep what was seen, with the job, its estimate and the calibration that made it.

        Args:
            seen: keys of `app.observations.reading.OBSERVATION`, as the callback and the explanation have them.
        """
        if not self.is_wanted:
            return
        try:
            line = self._line(seen, planned)
            if self._file is not None:
                with self._file.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")
            if self._client is not None or self._server:
                self._send(line)
        except Exception as error:  # whatever it is, it is nothing that a training run should end for
            self._say(f"what is seen of this run is not kept: {error}")

    def _line(self, seen: Mapping[str, Any], planned: Estimate) -> str:
        document = planned.to_json()
        observation = {
            "run": self._run,
            "outcome": "ok",
            **seen,
            "expected": document["peak_allocated_bytes"],
            "calibration": document["calibration"]["id"],
            "job": document["job"],
            "versions": installed(),
            "seen_at": self._clock().isoformat(timespec="seconds"),
        }
        return json.dumps(observation)

    def _send(self, line: str) -> None:
        """Send it, after what was kept before; keep it where that does not go. Once a run is enough to wait."""
        if self._away:
            self._keep(line)
            return
        try:
            self._send_what_waits()
            self._post([line])
        except CtxplanError as error:
            if _is_refused(error):
                self._say(f"the service does not take what is seen of this run: {error}")
                return
            self._away = True
            self._keep(line)
            self._say(f"what is seen of this run is kept in {self._unsent}, since it could not be sent: {error}")

    def _send_what_waits(self) -> None:
        """As much as goes into one request. It is forgotten when it was taken, or never will be; another process may
        send the same meanwhile, which the service knows by its content."""
        waiting = self._waiting()[:MOST_AT_ONCE]
        if not waiting:
            return
        try:
            self._post([text for text in waiting if _is_json(text)])
        except CtxplanError as error:
            if not _is_refused(error):
                raise
            LOG.warning("the service does not take what was kept in %s: %s", self._unsent, error)
        self._forget(waiting)

    def _post(self, lines: Sequence[str]) -> None:
        documents = [json.loads(line) for line in lines]
        if not documents:
            return
        if self._client is not None:
            self._client.add_observations(documents)
            return
        from ctxplan.client import Client  # only who sends needs httpx

        with Client(self._server, api_key=os.environ.get(API_KEY) or None, timeout=SECONDS, retries=0) as client:
            client.add_observations(documents)

    def _waiting(self) -> list[str]:
        return [line.decode(errors="replace") for line in whole_lines(content_of(self._unsent))]

    def _forget(self, sent: Sequence[str]) -> None:
        with locked(self._unsent) as fd:
            lines = whole_lines(os.pread(fd, os.fstat(fd).st_size, 0))
            rest = [line for line in lines if line.decode(errors="replace") not in set(sent)]
            os.ftruncate(fd, 0)
            append_lines(fd, b"".join(line + b"\n" for line in rest))

    def _keep(self, line: str) -> None:
        with locked(self._unsent) as fd:
            if os.fstat(fd).st_size + len(line) < MOST_KEPT_BYTES:
                append_lines(fd, f"{line}\n".encode())

    def _say(self, what: str) -> None:
        """Once a run: each step would say the same."""
        if not self._told:
            LOG.warning(what)
        self._told = True


def default_unsent(server: str, environment: Mapping[str, str] | None = None) -> Path:
    """Where observations wait for a service: what is meant for one is not sent to another."""
    environment = os.environ if environment is None else environment
    state = environment.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    name = hashlib.sha256(server.encode()).hexdigest()[:12]
    return Path(state) / "ctxplan" / f"observations-{name}.jsonl"


def installed() -> dict[str, str]:
    """The versions of the packages that decide memory, as they are installed here."""
    found = {}
    for name in DECISIVE:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def _is_refused(error: CtxplanError) -> bool:
    """Whether the service has read it and will never take it: another version's, for one."""
    return getattr(error, "status", None) in (400, 404, 405, 413, 422)
