"""Results on disk until the service has answered, so that a worker that dies loses none.

    running/    the lease that is worked on: found after a death, its attempt is reported as failed. Where it has failed
                before, with why: reported again until the service has answered
    results/    what was measured and not yet acknowledged: sent again, also after a restart
    refused/    what the service will not take, with its answer; for people, never sent again

A file is there as a whole or not at all, and on the disk before anything is sent. Files carry the lease's secret, so
the folder is the user's alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from probes.errors import EvidenceError
from probes.files import reason_of, write_json
from probes.worker.client import Lease
from probes.worker.errors import SpoolError

RUNNING, RESULTS, REFUSED = "running", "results", "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why an attempt gave no result: a code and words."""

    why: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spooled:
    """A lease that was written down, and its result, or why there is none, if it has come to that."""

    file: Path
    lease: Lease
    document: Mapping[str, Any] | None
    failure: Failure | None = None


class Spool:
    """The folder of one worker; for one process at a time (`probes.worker.claim`).

    Args:
        folder: made where it is not there. server: whose leases these are; those of others stay where they are.

    Raises:
        SpoolError: from every method, where the disk does not take what is written or gives what is read.
    """

    def __init__(self, folder: Path, server: str) -> None:
        self.folder = folder
        self._server = server
        try:
            for name in (RUNNING, RESULTS, REFUSED):
                (folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            raise SpoolError(f"{folder}: cannot be made: {reason_of(error)}") from None

    def begin(self, lease: Lease) -> None:
        """Write down that a point is worked on."""
        self._write(RUNNING, lease, None)

    def fail(self, lease: Lease, failure: Failure) -> None:
        """Write down why nothing came of the point, until it is forgotten."""
        self._write(RUNNING, lease, None, failure)

    def forget(self, lease: Lease) -> None:
        """The point is worked on no more, and nothing came of it that is to be sent."""
        self._remove(self._file(RUNNING, lease))

    def keep(self, lease: Lease, document: Mapping[str, Any]) -> Spooled:
        """Write down what a point gave. Where that fails, the lease still stands as worked on."""
        file = self._write(RESULTS, lease, document)
        self.forget(lease)
        return Spooled(file=file, lease=lease, document=document)

    def settle(self, spooled: Spooled) -> None:
        """The service has it."""
        self._remove(spooled.file)

    def refuse(self, spooled: Spooled, answer: Mapping[str, Any]) -> Path:
        """The service will not have it: put it aside, with the answer and without the lease's secret."""
        file = self.folder / REFUSED / spooled.file.name
        content = {
            "server": self._server,
            "job": spooled.lease.job,
            "epoch": spooled.lease.epoch,
            "answer": dict(answer),
            "document": spooled.document,
        }
        self._put(file, content)
        self._remove(spooled.file)
        return file

    def results(self) -> list[Spooled]:
        """What was not acknowledged yet, oldest first."""
        return self._read(RESULTS)

    def interrupted(self) -> list[Spooled]:
        """Leases that a worker died over, or whose failure is not answered for. Those whose result is here were
        finished, and are cleared away."""
        done = {one.file.name for one in self.results()}
        found = []
        for one in self._read(RUNNING):
            if one.file.name in done:
                self._remove(one.file)
            else:
                found.append(one)
        return found

    def _read(self, name: str) -> list[Spooled]:
        try:
            files = sorted((self.folder / name).glob("*.json"), key=lambda file: (file.stat().st_mtime_ns, file.name))
            contents = [(file, json.loads(file.read_bytes())) for file in files]
        except OSError as error:
            raise SpoolError(f"{self.folder / name}: cannot be read: {reason_of(error)}") from None
        except ValueError as error:
            raise SpoolError(f"{self.folder / name}: a file is not JSON: {error}", allowed="to move it away") from None
        return [
            Spooled(
                file=file,
                lease=Lease(**content["lease"]),
                document=content["document"],
                failure=Failure(**failure) if (failure := content.get("failure")) else None,
            )
            for file, content in contents
            if content["server"] == self._server
        ]

    def _write(
        self, name: str, lease: Lease, document: Mapping[str, Any] | None, failure: Failure | None = None
    ) -> Path:
        file = self._file(name, lease)
        failed = None if failure is None else asdict(failure)
        self._put(file, {"server": self._server, "lease": asdict(lease), "document": document, "failure": failed})
        return file

    def _put(self, file: Path, content: Mapping[str, Any]) -> None:
        try:
            write_json(file, content)
        except EvidenceError as error:
            raise SpoolError(f"the spool is not written: {error}") from None

    def _file(self, name: str, lease: Lease) -> Path:
        # The same job and epoch may come from another service, or from the same one with another database.
        which = hashlib.sha256(f"{self._server} {lease.token}".encode()).hexdigest()[:12]
        return self.folder / name / f"{lease.job}-{lease.epoch}-{which}.json"

    def _remove(self, file: Path) -> None:
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise SpoolError(f"{file}: cannot be removed: {reason_of(error)}") from None
