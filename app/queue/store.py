"""The queue, each operation one transaction.

**Time** is the server's, given as a clock when the store is made, and read inside the transaction, after whatever it
had to wait for. No worker's clock is ever believed. The clock may be wrong: set forward, it ends leases early; set
back, it would let them outlast their workers, so a sweep cuts them to a term from now. Neither lets a result count
twice: that rests on epochs, which only grow, and on the database. Replicas that share a database keep their clocks
within a fraction of ``lease_seconds`` of each other, as NTP does to a hundredth of a second.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from app.database.engine import Database
from app.queue import campaigns, leases, listing, operate, results, sweep, workers
from app.queue.claim import claim
from app.queue.errors import InvalidSubmission
from app.queue.requests import Submission, WorkerFacts
from app.queue.states import CampaignState, State
from app.queue.submit import submit
from app.queue.tokens import new_token
from app.queue.views import (
    Accepted,
    CampaignView,
    Depth,
    JobEvent,
    JobView,
    Lease,
    LeaseKey,
    Page,
    Submitted,
    Swept,
    WorkerView,
)

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How patient the queue is.

    Attributes:
        lease_seconds: for which a lease holds unless it is renewed; a worker renews well before.
        max_losses: workers that may fall silent over a job before it fails: it may be what kills them.
        sweep_jobs: jobs that a sweep changes in one transaction.
    """

    lease_seconds: int = 60
    max_losses: int = 2
    sweep_jobs: int = 200

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise InvalidSubmission(f"{getattr(self, name)} is not accepted", key=name, allowed="1 or more")


def utc_now() -> datetime:
    """The machine's clock."""
    return datetime.now(UTC)


class JobStore:
    """The queue on one database."""

    def __init__(
        self,
        database: Database,
        *,
        clock: Clock = utc_now,
        limits: Limits | None = None,
        tokens: Callable[[], str] = new_token,
    ) -> None:
        self._database = database
        self._clock = clock
        self._limits = limits or Limits()
        self._tokens = tokens

    async def submit(self, submission: Submission) -> Submitted:
        """Take jobs in; see `app.queue.submit.submit`."""
        async with self._database.write() as connection:
            return await submit(connection, submission, self._clock())

    async def claim(self, worker: WorkerFacts) -> Lease | None:
        """Lease the best queued job that this worker can do; None where there is none, or the worker is draining."""
        seconds, token = self._limits.lease_seconds, self._tokens()
        async with self._database.write() as connection:
            return await claim(connection, worker, self._clock(), seconds=seconds, token=token)

    async def renew(self, key: LeaseKey) -> datetime:
        """Hold on to a leased job; see `app.queue.leases.renew`."""
        async with self._database.write() as connection:
            return await leases.renew(connection, key, self._clock(), seconds=self._limits.lease_seconds)

    async def complete(self, key: LeaseKey, document: Mapping[str, Any], *, quarantine: str | None = None) -> Accepted:
        """Take a leased job's result, whatever its outcome: an out-of-memory is a fact like any other.

        Args:
            document: the measurement, `probes.measurement`.
            quarantine: why no fit shall read it; it ends the job all the same.

        Raises:
            LeaseLost: the lease is over. A result that was measured under it is put aside, and never counted.
            UnknownJob: there is none. InvalidSubmission: the document is no JSON.
        """
        async with self._database.write() as connection:
            now = self._clock()
            accepted = await results.complete(connection, key, now, document=document, quarantine=quarantine)
            if accepted is not None:
                return accepted
            kept = await results.keep_late(connection, key, now, document)
            refusal = await leases.lost(connection, key, kept=kept)
        # Only now: what was put aside is committed.
        raise refusal

    async def fail(
        self, key: LeaseKey, why: str, *, detail: Mapping[str, Any] | None = None, retriable: bool = True
    ) -> State:
        """Say that an attempt gave no result, with its evidence; see `app.queue.leases.fail`."""
        async with self._database.write() as connection:
            now = self._clock()
            return await leases.fail(connection, key, now, why=why, detail=detail or {}, retriable=retriable)

    async def give_back(self, key: LeaseKey) -> None:
        """Return a leased job untouched; see `app.queue.leases.give_back`."""
        async with self._database.write() as connection:
            await leases.give_back(connection, key, self._clock())

    async def cancel(self, job_id: int) -> JobView:
        """End a job; see `app.queue.operate.cancel`."""
        async with self._database.write() as connection:
            await operate.cancel(connection, job_id, self._clock())
            return await listing.get(connection, job_id)

    async def retry(self, job_id: int) -> JobView:
        """Queue an ended job again; see `app.queue.operate.retry`."""
        async with self._database.write() as connection:
            await operate.retry(connection, job_id, self._clock())
            return await listing.get(connection, job_id)

    async def sweep(self) -> Swept:
        """End the leases that ran out and the jobs whose time has passed, all of them. Any number may sweep at once."""
        async with self._database.write() as connection:
            total = await sweep.cut_leases(connection, self._clock())
        size = self._limits.sweep_jobs
        while True:
            async with self._database.write() as connection:
                now = self._clock()
                ended = await sweep.end_leases(connection, now, limit=size, max_losses=self._limits.max_losses)
                waiting = await sweep.end_waiting(connection, now, limit=size)
            total = total + ended + waiting
            if ended.requeued + ended.failed < size and waiting.expired < size:
                return total

    async def get(self, job_id: int) -> JobView:
        """One job. Raises UnknownJob."""
        async with self._database.read() as connection:
            return await listing.get(connection, job_id)

    async def list(
        self,
        *,
        state: State | None = None,
        campaign_id: int | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> Page:
        """A page of jobs, newest first; see `app.queue.listing.list_jobs`."""
        async with self._database.read() as connection:
            return await listing.list_jobs(connection, state=state, campaign_id=campaign_id, limit=limit, cursor=cursor)

    async def history(self, job_id: int) -> tuple[JobEvent, ...]:
        """All that has happened to a job. Raises UnknownJob."""
        async with self._database.read() as connection:
            return await listing.history(connection, job_id)

    async def depth(self) -> tuple[Depth, ...]:
        """How many jobs wait for each kind of card."""
        async with self._database.read() as connection:
            return await listing.depth(connection)

    async def campaign(self, campaign_id: int) -> CampaignView:
        """A campaign and the states of its jobs. Raises UnknownCampaign."""
        async with self._database.read(snapshot=True) as connection:
            return await campaigns.get_campaign(connection, campaign_id)

    async def finish_campaign(
        self, campaign_id: int, state: CampaignState, *, calibration_id: str | None = None
    ) -> CampaignView:
        """End a campaign; see `app.queue.campaigns.finish_campaign`."""
        async with self._database.write() as connection:
            now = self._clock()
            await campaigns.finish_campaign(connection, campaign_id, state, now, calibration_id=calibration_id)
            return await campaigns.get_campaign(connection, campaign_id)

    async def see_worker(self, worker: WorkerFacts, *, name: str) -> WorkerView:
        """Remember what a worker says of itself; see `app.queue.workers.see_worker`."""
        async with self._database.write() as connection:
            return await workers.see_worker(connection, worker, self._clock(), name=name)

    async def drain_worker(self, worker_id: str, *, draining: bool = True) -> WorkerView:
        """Give a worker no further job, or jobs again. Raises UnknownWorker."""
        async with self._database.write() as connection:
            return await workers.drain_worker(connection, worker_id, draining=draining)

    async def workers(self) -> tuple[WorkerView, ...]:
        """All workers that were ever seen."""
        async with self._database.read() as connection:
            return await workers.list_workers(connection)
