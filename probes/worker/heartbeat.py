"""Holds on to the lease and says that the worker lives, in a thread beside the measurement."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Literal

from estimator.errors import CtxplanError
from probes.worker.client import Lease, Server
from probes.worker.errors import Away, LeaseLost
from probes.worker.facts import Facts
from probes.worker.patience import Patience
from probes.worker.stopping import Stopping

HEARTBEAT_SECONDS = 20.0
BUSY_SECONDS = 4.0
"""While a point is measured: a heartbeat's answer says that the job was cancelled, and the probe is to be gone ten
seconds after the cancellation. The lease's own renewals are 20 seconds apart by default."""
LEAST_SECONDS = 0.2
Told = Literal["cancelled", "lost"]


class Heartbeat:
    """For use in ``with``. While the service is away it tries again, also past the end of the lease: what the point
    gives is worth sending until the service says that it is not wanted.

    Args:
        say: for a line that a person reads.
    """

    def __init__(
        self,
        server: Server,
        facts: Facts,
        stopping: Stopping,
        *,
        say: Callable[[str], None],
        patience: Patience,
    ) -> None:
        self._server, self._facts, self._stopping, self._say = server, facts, stopping, say
        self._patience = patience
        self._changed = threading.Condition()
        self._lease: Lease | None = None
        self._told: Told | None = None
        self._renew_at, self._beat_at = 0.0, time.monotonic()
        self._closing = False
        self._away = False
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    @property
    def told(self) -> Told | None:
        """What became of the lease that is held, where it is over."""
        return self._told

    def hold(self, lease: Lease) -> None:
        """Renew this lease from now on."""
        with self._changed:
            self._lease, self._told = lease, None
            now = time.monotonic()
            self._renew_at = now + max(LEAST_SECONDS, lease.renew_after_seconds)
            self._beat_at = min(self._beat_at, now + BUSY_SECONDS)
            self._changed.notify_all()

    def let_go(self) -> None:
        """Renew it no more."""
        with self._changed:
            self._lease = None

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        # A request that is on its way ends by its own time limit, and nothing hangs on it any more.
        self._thread.join(LEAST_SECONDS)

    def _run(self) -> None:
        while True:
            with self._changed:
                due = self._beat_at if self._lease is None or self._told else min(self._beat_at, self._renew_at)
                if not self._closing and (wait := due - time.monotonic()) > 0:
                    self._changed.wait(wait)
                if self._closing:
                    return
                lease, now = None if self._told else self._lease, time.monotonic()
                renew = lease is not None and now >= self._renew_at
            try:
                if lease is not None and renew:
                    self._renew(lease)
                elif now >= self._beat_at:
                    self._beat(lease)
            except Exception as error:  # a fault of ours costs no lease: it is said, and the thread goes on
                self._fault(lease, error)

    def _renew(self, lease: Lease) -> None:
        try:
            renewed = self._server.renew(lease)
        except LeaseLost:
            self._over(lease, "lost")
        except CtxplanError as error:
            self._try_again(lease, error)
        else:
            self._heard()
            if renewed.cancelled:
                self._over(lease, "cancelled")
            self._renew_after(lease, max(LEAST_SECONDS, renewed.renew_after_seconds))

    def _beat(self, lease: Lease | None) -> None:
        """Say that the worker lives, and hear whether its job was cancelled."""
        try:
            cancelled = self._server.heartbeat(
                self._facts, draining=self._stopping.draining, job=lease.job if lease else None
            )
        except CtxplanError:  # renewals, and the worker's own requests, say what is wrong
            cancelled = False
        if cancelled and lease is not None:
            self._over(lease, "cancelled")
        with self._changed:  # a lease may have come while the service was asked
            busy = self._lease is not None and self._told is None
            self._beat_at = time.monotonic() + (BUSY_SECONDS if busy else HEARTBEAT_SECONDS)

    def _try_again(self, lease: Lease, error: CtxplanError) -> None:
        asked = error.retry_after_seconds if isinstance(error, Away) else None
        if not self._away:
            self._away = True
            self._say(f"job {lease.job}: the lease is not renewed: {error}; it goes on, and so does the measurement")
        self._renew_after(lease, self._patience.next_wait_seconds(asked))

    def _fault(self, lease: Lease | None, error: Exception) -> None:
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(place.filename)}:{place.lineno}"
        with suppress(Exception):  # what failed may be the saying
            self._say(f"internal error in {where}: {type(error).__name__}: {error}; the heartbeat goes on")
        wait = self._patience.next_wait_seconds()
        if lease is not None:
            self._renew_after(lease, wait)
        with self._changed:
            self._beat_at = max(self._beat_at, time.monotonic() + wait)

    def _renew_after(self, lease: Lease, seconds: float) -> None:
        with self._changed:
            if self._lease is lease:  # the next one, held while the service was asked, has its own time
                self._renew_at = time.monotonic() + seconds

    def _heard(self) -> None:
        self._away = False
        self._patience.reset()

    def _over(self, lease: Lease, told: Told) -> None:
        with self._changed:
            if self._lease is lease:
                self._told = told
