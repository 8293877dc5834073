"""Says to the service what became of a lease, and again while it is away, until it has answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from probes.worker.client import Lease, Server
from probes.worker.errors import Away, LeaseLost, Refused, SpoolError
from probes.worker.patience import Patience
from probes.worker.spool import Failure, Spool, Spooled
from probes.worker.stopping import Stopping

LONGEST_MESSAGE = 4000
Fate = Literal["accepted", "duplicate", "late", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """Speaks for one worker.

    Args:
        patience: between tries. on_fate: hears what became of each result. say: for a line that a person reads.
    """

    server: Server
    spool: Spool
    stopping: Stopping
    patience: Patience
    on_fate: Callable[[Fate], None]
    say: Callable[[str], None]

    def send_all(self) -> None:
        """Send every result of the spool until the service has answered. What is left when the worker is told to
        stop at once stays there.

        Raises:
            SpoolError, NotLetIn, NotTheService: the worker cannot go on; what was not answered stays in the spool.
        """
        for spooled in self.spool.results():
            what = f"job {spooled.lease.job}: the result"
            if not self.insist(lambda one=spooled: self._send(one), what):  # type: ignore[misc]
                return

    def insist(self, send: Callable[[], None], what: str) -> bool:
        """Send until there is an answer. Returns whether there was one before the worker was told to stop at once."""
        told = False
        while True:
            try:
                send()
            except Away as error:
                if not told:
                    self.say(f"{what} waits: {error}")
                    told = True
                if self.stopping.now:
                    return False
                self.stopping.wait_for_end(self.patience.next_wait_seconds(error.retry_after_seconds))
            else:
                self.patience.reset()
                return True
            if self.stopping.now:
                return False

    def fail(self, lease: Lease, failure: Failure) -> None:
        """Say that the attempt gave no result; that the lease is over by now is no fault. The spool has it until the
        service has answered, for the worker's next life to say."""

        def send() -> None:
            try:
                self.server.fail(lease, failure.why, {"message": failure.message[:LONGEST_MESSAGE]})
            except (LeaseLost, Refused) as error:
                self.say(f"job {lease.job}: its failure is not wanted any more: {error}")

        self._keep(lease, failure)
        if self.insist(send, f"job {lease.job}: its failure"):
            self.spool.forget(lease)
        else:
            self.say(f"job {lease.job}: its failure is not answered, and is sent by the next worker with this spool")

    def give_back(self, lease: Lease) -> None:
        """Return a point, once: a service that is away learns of it when the lease runs out."""
        try:
            self.server.give_back(lease)
        except (Away, LeaseLost, Refused) as error:
            self.say(f"job {lease.job}: not given back, its lease runs out by itself: {error}")
        else:
            self.say(f"job {lease.job}: given back")

    def _keep(self, lease: Lease, failure: Failure) -> None:
        try:
            self.spool.fail(lease, failure)
        except SpoolError as error:  # then it is sent from memory
            self.say(f"job {lease.job}: {error}")

    def _send(self, spooled: Spooled) -> None:
        assert spooled.document is not None  # noqa: S101 -- what is read from results/
        lease = spooled.lease
        try:
            sent = self.server.send_result(lease, spooled.document)
        except LeaseLost as error:
            file = self.spool.refuse(spooled, error.answer)
            self.say(f"job {lease.job}: too late, kept in {file}: {error}")
            self.on_fate("late")
        except Refused as error:
            file = self.spool.refuse(spooled, error.answer)
            self.say(f"job {lease.job}: refused, kept in {file}: {error}")
            self.on_fate("refused")
            self.fail(lease, Failure(why=error.why, message=str(error)))
        else:
            self.spool.settle(spooled)
            doubt = sent.answer.get("quarantined")
            self.say(f"job {lease.job}: {sent.how}" + (f", quarantined: {doubt}" if doubt else ""))
            self.on_fate(sent.how)
