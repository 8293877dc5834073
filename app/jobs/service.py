"""What the routes ask of the queue. Each answer is plain JSON values."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from anyio import to_thread

from app.backend import Backend
from app.calibrations import Calibrations
from app.jobs import campaigns, measurements
from app.jobs.counting import Counting
from app.jobs.expansion import expand, model_of
from app.jobs.reading import (
    DRAINING,
    FAILURE,
    HEARTBEAT,
    LEASING,
    MEASUREMENTS,
    NEEDED_OF_WORKER,
    RELEASE,
    facts_of,
    read_object,
    read_submission,
)
from app.jobs.release import release
from app.jobs.results import doubt_of_result, to_be_taken_in
from app.jobs.views import campaign_to_json, job_to_json, lease_to_json, measurement_to_json, term, worker_to_json
from app.queue import (
    CampaignState,
    InvalidSubmission,
    JobView,
    LeaseKey,
    LeaseLost,
    State,
    Submission,
    UnknownJob,
)
from app.queue.listing import get as get_job
from app.queue.requests import digest_of
from app.queue.submit import submit
from app.queue.tokens import new_token
from app.settings import Settings
from app.turns import TurnsOf
from ctxplan import Planner

THREADS = 4
"""Of requests that wait for arithmetic: expansions and judgements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked(Submission):
    """A submission that its idempotency key is held to by what the request said, not by what became of it: the same
    request may become other jobs once another calibration is active."""

    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def body_digest(self) -> str:
        return digest_of(self.body)


class Jobs:
    """The queue over HTTP.

    Args:
        planner: the service's own, which says what a point needs. models: knows the models that a request may name.
    """

    def __init__(
        self,
        backend: Backend,
        planner: Planner,
        calibrations: Calibrations,
        settings: Settings,
        *,
        models: Planner,
        turns: TurnsOf,
    ) -> None:
        self.backend = backend
        self.calibrations = calibrations
        self.counting = Counting(backend)
        self.changed = asyncio.Event()
        """Set whenever a job has ended: a campaign may be due."""
        self._planner = planner
        self._models = models
        self._time_limit_seconds = settings.probe_time_limit_seconds
        self._threads = turns("jobs", at_once=THREADS)

    async def submit(self, data: Any, *, submitter: str, key: str | None) -> tuple[dict[str, Any], bool]:
        """Queue what is to be measured. The answer, and whether it was given to this key before.

        Raises:
            CtxplanError: something in the request is none; IdempotencyConflict: the key stands for another request.
        """
        body = read_submission(data)
        requests = await self._threads.in_thread(expand, body, self._planner)
        asked = _Asked(
            submitter=submitter, jobs=requests, idempotency_key=key, campaign_model=model_of(body), body=data
        )
        database = await self.backend.database()
        async with database.write() as connection:
            done = await submit(connection, asked, self.backend.clock())
            if done.campaign_id is not None and not done.replayed:
                await campaigns.begin(connection, done.campaign_id, body.get("activate", "if_better"))
        async with database.read(snapshot=True) as connection:
            items = [job_to_json(await get_job(connection, one)) for one in done.job_ids]
        return {"items": items, "campaign": done.campaign_id}, done.replayed

    async def page(
        self, *, state: State | None, campaign: int | None, limit: int, cursor: str | None
    ) -> dict[str, Any]:
        """Some of the jobs, newest first. Raises InvalidCursor."""
        store = await self.backend.jobs()
        page = await store.list(state=state, campaign_id=campaign, limit=limit, cursor=cursor)
        return {"items": [job_to_json(one) for one in page.items], "next": page.next}

    async def job(self, job_id: int) -> dict[str, Any]:
        """One job, with its history. Raises UnknownJob."""
        store = await self.backend.jobs()
        return job_to_json(await store.get(job_id), await store.history(job_id))

    async def cancel(self, job_id: int) -> dict[str, Any]:
        """End a job. Raises UnknownJob, JobStateConflict."""
        found = job_to_json(await (await self.backend.jobs()).cancel(job_id))
        self.changed.set()
        return found

    async def retry(self, job_id: int) -> dict[str, Any]:
        """Queue an ended job again. Raises UnknownJob, JobStateConflict."""
        return job_to_json(await (await self.backend.jobs()).retry(job_id))

    async def lease(self, data: Any) -> dict[str, Any] | None:
        """Give a worker the best job that it can do; None where there is none. Raises InvalidSubmission."""
        body = read_object(LEASING, data, what="a request for a lease", required=frozenset({"worker"}))
        facts, name = await to_thread.run_sync(facts_of, body["worker"])
        store = await self.backend.jobs()
        await store.see_worker(facts, name=name)
        lease = await store.claim(facts)
        return lease_to_json(lease, time_limit_seconds=self._time_limit_seconds) if lease else None

    async def renew(self, key: LeaseKey) -> dict[str, Any]:
        """Hold on to a lease, or learn that its job was cancelled. Raises LeaseLost, UnknownJob."""
        store = await self.backend.jobs()
        try:
            await store.renew(key)
        except LeaseLost:
            if not _was_cancelled(await store.get(key.job_id), key.epoch):
                raise
            return {"expires_in_seconds": 0, "renew_after_seconds": 0, "cancelled": True}
        return {**term(self.backend.limits.lease_seconds), "cancelled": False}

    async def complete(self, key: LeaseKey, data: Any) -> tuple[dict[str, Any], bool]:
        """Take a result. The answer, and whether it was given before.

        Raises:
            LeaseLost: it comes too late, and is kept aside. WrongPoint, EvidenceError: it is not of the leased point,
                or no measurement; the job goes on as it was.
        """
        store = await self.backend.jobs()
        job = await store.get(key.job_id)
        reason = await self._threads.in_thread(doubt_of_result, data, job, self.calibrations.calibration)
        done = await store.complete(key, data, quarantine=reason)
        self.changed.set()
        # Sent again, it stands as it did the first time, whatever would be thought of it now.
        row = measurement_to_json(await self._row(done.measurement_id))
        answer = {"measurement": done.measurement_id, "state": done.state, "quarantined": row["quarantined"]}
        return answer, done.replayed

    async def fail(self, key: LeaseKey, data: Any) -> dict[str, Any]:
        """Hear that an attempt gave no result. Raises LeaseLost, InvalidSubmission."""
        body = read_object(FAILURE, data, what="a failure", required=frozenset({"why"}))
        store = await self.backend.jobs()
        state = await store.fail(key, body["why"], detail=body.get("detail", {}), retriable=body.get("retriable", True))
        self.changed.set()
        return {"state": state.value}

    async def give_back(self, key: LeaseKey) -> dict[str, Any]:
        """Take a job back untouched. Raises LeaseLost."""
        await (await self.backend.jobs()).give_back(key)
        return {"state": State.QUEUED.value}

    async def heartbeat(self, worker_id: str, data: Any) -> dict[str, Any]:
        """Remember a worker, and tell it whether it drains and whether its job was cancelled. Raises InvalidSubmission.

        Whether it drains is the operator's to say: a worker that drains by itself asks for no job.
        """
        needed = (NEEDED_OF_WORKER - {"id"}) | {"draining"}
        body = read_object(HEARTBEAT, data, what="a heartbeat", required=needed)
        if body.setdefault("id", worker_id) != worker_id:
            raise InvalidSubmission("is another worker's", key="id", allowed="the path's")
        facts, name = await to_thread.run_sync(facts_of, body)
        store = await self.backend.jobs()
        view = await store.see_worker(facts, name=name)
        return {"worker": worker_to_json(view), "cancelled": await self._is_cancelled(body.get("job"))}

    async def workers(self) -> dict[str, Any]:
        """All workers that were ever seen."""
        found = await (await self.backend.jobs()).workers()
        return {"items": [worker_to_json(one) for one in found], "next": None}

    async def drain(self, worker_id: str, data: Any) -> dict[str, Any]:
        """Give a worker no further job, or jobs again. Raises UnknownWorker, InvalidSubmission."""
        body = read_object(DRAINING, data, what="a drain", required=frozenset({"draining"}))
        view = await (await self.backend.jobs()).drain_worker(worker_id, draining=body["draining"])
        return worker_to_json(view)

    async def measurement(self, measurement_id: int) -> dict[str, Any]:
        """One of them. Raises UnknownMeasurement."""
        return measurement_to_json(await self._row(measurement_id))

    async def measurements(self, **asked: Any) -> dict[str, Any]:
        """Some of them, newest first; see `app.jobs.measurements.list_measurements`."""
        async with (await self.backend.database()).read() as connection:
            page = await measurements.list_measurements(connection, **asked)
        return {"items": [measurement_to_json(one) for one in page.items], "next": page.next}

    async def release(self, measurement_id: int, data: Any, *, by: str) -> dict[str, Any]:
        """Believe a measurement that was quarantined. Raises UnknownMeasurement, InvalidSubmission."""
        body = read_object(RELEASE, data, what="a release")
        database = await self.backend.database()
        async with database.write() as connection:
            now = self.backend.clock()
            await release(connection, measurement_id, now, by=by, why=body.get("why"))
        self.changed.set()
        return await self.measurement(measurement_id)

    async def take_in(self, data: Any) -> tuple[dict[str, Any], bool]:
        """Keep measurements that no lease was for, all or none; whether one of them is new.

        Raises:
            CtxplanError: one is none, is not of the point that it names, or names a model that a request may not.
        """
        body = read_object(MEASUREMENTS, data, what="measurements", required=frozenset({"measurements"}))
        calibration = self.calibrations.calibration
        listed = await self._threads.in_thread(to_be_taken_in, body["measurements"], self._models, calibration)
        items, is_new = [], False
        database = await self.backend.database()
        async with database.write() as connection:
            for one in listed:
                row, new = await measurements.take_in(connection, one, self.backend.clock(), token=new_token())
                items.append(measurement_to_json(row) | {"new": new})
                is_new = is_new or new
        return {"items": items, "next": None}, is_new

    async def campaign(self, campaign_id: int) -> dict[str, Any]:
        """One of them. Raises UnknownCampaign."""
        async with (await self.backend.database()).read(snapshot=True) as connection:
            return _campaign(await campaigns.get(connection, campaign_id))

    async def campaigns(self, *, state: CampaignState | None, limit: int, cursor: str | None) -> dict[str, Any]:
        """Some of them, newest first. Raises InvalidCursor."""
        async with (await self.backend.database()).read(snapshot=True) as connection:
            page = await campaigns.list_campaigns(connection, state=state, limit=limit, cursor=cursor)
        return {"items": [_campaign(one) for one in page.items], "next": page.next}

    async def cancel_campaign(self, campaign_id: int) -> dict[str, Any]:
        """End a campaign, and the jobs of it that have not ended. Raises UnknownCampaign, JobStateConflict."""
        await (await self.backend.jobs()).finish_campaign(campaign_id, CampaignState.CANCELLED)
        return await self.campaign(campaign_id)

    async def _is_cancelled(self, job_id: int | None) -> bool:
        if job_id is None:
            return False
        try:
            return (await (await self.backend.jobs()).get(job_id)).state is State.CANCELLED
        except UnknownJob:
            return False

    async def _row(self, measurement_id: int) -> Any:
        async with (await self.backend.database()).read() as connection:
            return await measurements.get_measurement(connection, measurement_id)


def _campaign(kept: campaigns.Kept) -> dict[str, Any]:
    return campaign_to_json(kept.view, kept.activate, kept.outcome)


def _was_cancelled(job: JobView, epoch: int) -> bool:
    return job.state is State.CANCELLED and job.epoch == epoch
