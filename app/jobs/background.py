"""What no request asks for: leases that ran out are ended, and campaigns that have measured all are fitted.

Every replica does both. A sweep may run anywhere at any time; a campaign ends once, whoever comes first, and a fit that
came second is thrown away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anyio import to_thread
from sqlalchemy.exc import SQLAlchemyError

from app.backend import Backend, QueueUnavailable
from app.calibration_database import with_cause
from app.calibrations import Calibrations
from app.database.calibrations import add_calibration
from app.database.engine import Database
from app.jobs import campaigns
from app.jobs.fitting import NOTHING, Fitted
from app.jobs.fitting_process import FitBroken, fit_apart
from app.jobs.measurements import accepted_documents, count_accepted
from app.jobs.service import Jobs
from app.queue import CampaignState, JobStateConflict
from app.queue.campaigns import finish_campaign
from estimator.calibration.document import calibration_to_json
from estimator.errors import CtxplanError

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

PREFIX = "sha256-"
LONGEST_SECONDS = 600.0
MOST_FITS = 5
"""A campaign whose fit has ended so often without an answer has failed: the next one would end so too."""
MAX_WHY = 500


@dataclass(frozen=True, slots=True)
class Tries:
    """How often a campaign could not be settled, and when it is tried again, on the loop's clock."""

    failed: int = 0
    not_before: float = float("-inf")

    def after(self, now: float, seconds: float) -> Tries:
        """One more that failed: each waits twice as long, up to `LONGEST_SECONDS`."""
        wait = min(LONGEST_SECONDS, seconds * 2.0 ** min(self.failed, 30))
        return Tries(self.failed + 1, now + wait)


class Background:
    """The two loops of one process.

    Args:
        seconds: between two rounds; a job that has ended begins one at once.
    """

    def __init__(self, jobs: Jobs, *, seconds: float, log: FilteringBoundLogger) -> None:
        self._jobs = jobs
        self._seconds = seconds
        self._log = log
        self._told: dict[str, str] = {}
        self._made_up_for: set[campaigns.Activated] = set()
        self._tries: dict[int, Tries] = {}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the loops until the block ends."""
        tasks = [
            asyncio.create_task(self._repeat("sweep", self.sweep, asyncio.Event())),
            asyncio.create_task(self._repeat("campaigns", self.settle, self._jobs.changed)),
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task
            await self._jobs.counting.stop()

    async def sweep(self) -> None:
        """End leases and jobs whose time has passed."""
        swept = await (await self._jobs.backend.jobs()).sweep()
        if swept.requeued or swept.failed or swept.expired:
            self._log.info("swept", requeued=swept.requeued, failed=swept.failed, expired=swept.expired)
        if swept.failed or swept.expired:
            self._jobs.changed.set()

    async def settle(self) -> None:
        """Fit every campaign whose jobs have all ended, and end it."""
        database = await self._jobs.backend.database()
        settling = Settling(self._jobs.backend, self._jobs.calibrations, database, self._log)
        async with database.read() as connection:
            due = await campaigns.due(connection)
            activated = await campaigns.activated_lately(connection, self._jobs.backend.clock())
        time = asyncio.get_running_loop().time
        self._tries = {one: self._tries[one] for one in due if one in self._tries}
        for campaign_id in due:
            tries, name = self._tries.get(campaign_id, Tries()), f"campaign {campaign_id}"
            if time() < tries.not_before:
                continue
            try:
                await settling.settle(campaign_id)
                self._tries.pop(campaign_id, None)
                self._told.pop(name, None)
            except Exception as error:  # the next one may do better
                self._caught(name, error)
                self._tries[campaign_id] = tries.after(time(), self._seconds)
        await settling.make_up_for([one for one in activated if one not in self._made_up_for])
        self._made_up_for.update(activated)

    async def _repeat(self, name: str, do: Callable[[], Awaitable[None]], wake: asyncio.Event) -> None:
        while True:
            wake.clear()
            try:
                await do()
                self._told.pop(name, None)
            except Exception as error:  # none ends the loop or the service
                self._caught(name, error)
            with suppress(TimeoutError):
                await asyncio.wait_for(wake.wait(), self._seconds)

    def _caught(self, name: str, error: Exception) -> None:
        """Log what a task failed of: a fault of ours whole each time, any other in a line, and once while it lasts."""
        if isinstance(error, QueueUnavailable):
            return  # said once, where it was opened
        if isinstance(error, CtxplanError | SQLAlchemyError | OSError):
            self._tell(name, with_cause(error))
        else:
            self._log.error("a background task failed", task=name, exc_info=error)

    def _tell(self, name: str, text: str) -> None:
        if self._told.get(name) != text:
            self._log.warning("a background task failed", task=name, detail=text)
        self._told[name] = text


class _Outdated(Exception):
    """What was fitted is not all that is known by now; rolls the transaction back."""


class Settling:
    """Ends campaigns."""

    def __init__(
        self, backend: Backend, calibrations: Calibrations, database: Database, log: FilteringBoundLogger
    ) -> None:
        self._backend = backend
        self._calibrations = calibrations
        self._database = database
        self._log = log

    async def settle(self, campaign_id: int) -> None:
        """Fit what a campaign has measured, keep and perhaps activate it, and say what became of it."""
        async with self._database.read(snapshot=True) as connection:
            kept = await campaigns.get(connection, campaign_id)
            own = await accepted_documents(connection, campaign_id)
            known = await accepted_documents(connection) if own else ()
        if not own:
            await self._fail(campaign_id, NOTHING, seen=0)
            return
        is_shipped, rows = await to_thread.run_sync(self._calibrations.known)
        active = self._calibrations.calibration
        try:
            fitted = await fit_apart(own, [*rows, *known], active, is_shipped=is_shipped)
        except CtxplanError as error:
            await self._fail(campaign_id, str(error), seen=len(own))
            return
        except OSError as error:
            if not await self._was_last(campaign_id, kept.attempts, error):
                raise
            why = f"its fit failed {kept.attempts + 1} times, the last time so: {error}"
            await self._fail(campaign_id, _line(why), seen=len(own))
            return
        # Where it cannot be kept now, the campaign is not over: it is fitted again.
        await to_thread.run_sync(self._calibrations.keep, fitted.calibration, fitted.documents)
        await self._done(campaign_id, kept, fitted, seen=len(own))

    async def make_up_for(self, activated: Sequence[campaigns.Activated]) -> None:
        """Activate what a campaign said it had and had not: the process ended, or the store failed, in between."""
        for one in activated:
            id = f"{PREFIX}{one.calibration}"
            if not await to_thread.run_sync(self._calibrations.was_decided, id, one.finished_at):
                await self._activate(one.campaign, id, one.why)

    async def _done(self, campaign_id: int, kept: campaigns.Kept, fitted: Fitted, *, seen: int) -> None:
        calibration = fitted.calibration
        digest = calibration.id.removeprefix(PREFIX)
        async with self._database.write_session() as session:
            document = calibration_to_json(calibration)
            await add_calibration(session, digest, document, self._backend.clock(), source="campaign")
        wanted = kept.activate == "always" or (kept.activate == "if_better" and fitted.better)
        outcome = {
            "calibration": calibration.id,
            "points": calibration.points,
            "better": fitted.better,
            "why": fitted.why,
            "activated": wanted,
            "errors": dict(fitted.errors),
        }
        if await self._finish(campaign_id, CampaignState.DONE, outcome, digest, seen=seen) and wanted:
            await self._activate(campaign_id, calibration.id, fitted.why)

    async def _was_last(self, campaign_id: int, attempts: int, error: OSError) -> bool:
        """Count a fit that ended without an answer, in the database, for every process and its successors; whether
        there is to be no further one."""
        async with self._database.write() as connection:
            is_new = await campaigns.count_attempt(connection, campaign_id, seen=attempts)
        said = error.said if isinstance(error, FitBroken) else ""
        self._log.warning("a fit failed", campaign=campaign_id, attempt=attempts + 1, detail=str(error), said=said)
        return is_new and attempts + 1 >= MOST_FITS

    async def _activate(self, campaign_id: int, calibration: str, why: str) -> None:
        text = f"campaign {campaign_id}: {why}"[:500]
        await to_thread.run_sync(lambda: self._calibrations.make_active(calibration, why=text))

    async def _fail(self, campaign_id: int, why: str, *, seen: int) -> None:
        nothing: dict[str, Any] = {"calibration": None, "points": 0, "better": False, "activated": False, "errors": {}}
        await self._finish(campaign_id, CampaignState.FAILED, {**nothing, "why": why}, None, seen=seen)

    async def _finish(
        self, campaign_id: int, state: CampaignState, outcome: Mapping[str, Any], digest: str | None, *, seen: int
    ) -> bool:
        """Whether it was this process that ended the campaign. What became of it is said in the same transaction.

        Args:
            seen: how many measurements were read. Where an operator has released one since, it is fitted again.
        """
        try:
            async with self._database.write() as connection:
                now = self._backend.clock()
                await finish_campaign(connection, campaign_id, state, now, calibration_id=digest)
                if await count_accepted(connection, campaign_id) != seen:
                    raise _Outdated
                await campaigns.note(connection, campaign_id, outcome)
        except (JobStateConflict, _Outdated):
            return False
        self._log.info("campaign ended", campaign=campaign_id, state=state.value, why=outcome["why"])
        return True


def _line(text: str) -> str:
    """A line that both databases hold and a page shows."""
    return "".join(one if one.isprintable() else " " for one in text)[:MAX_WHY]
