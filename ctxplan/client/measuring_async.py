"""The methods about what is measured, for code that awaits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar, Unpack

import httpx

from ctxplan.client import queue_answers, queue_calls
from ctxplan.client.calls import JobLike
from ctxplan.client.options import CampaignOptions, SubmitOptions
from ctxplan.client.retries import Retries
from ctxplan.client.watch import Watch
from ctxplan.client.wire import Call

T = TypeVar("T")


class AsyncMeasuring(ABC):
    """Jobs, measurements, campaigns, workers and observations; `ctxplan.client.AsyncClient` is one."""

    _http: httpx.AsyncClient
    _retries: Retries
    _sleep: Callable[[float], Awaitable[object]]

    @abstractmethod
    async def ask(self, call: Call[T]) -> T:
        """Send a call and read its answer."""

    async def submit_point(
        self, point: Mapping[str, Any], **options: Unpack[SubmitOptions]
    ) -> queue_answers.SubmittedAnswer:
        """Queue a point to be measured; one with ``sequence_lengths`` is a job for each."""
        return await self.ask(queue_calls.submit_point(point, options))

    async def submit_points(
        self, points: Iterable[Mapping[str, Any]], **options: Unpack[SubmitOptions]
    ) -> queue_answers.SubmittedAnswer:
        """Queue several points, all of them or none."""
        return await self.ask(queue_calls.submit_points(points, options))

    async def start_campaign(
        self, model: str | JobLike, **options: Unpack[CampaignOptions]
    ) -> queue_answers.SubmittedAnswer:
        """Have the points measured that pin a model, or a job of it, and a calibration fitted to them."""
        return await self.ask(queue_calls.start_campaign(model, options))

    async def probe_jobs(
        self,
        *,
        state: queue_answers.State | None = None,
        campaign: int | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> queue_answers.JobListing:
        """A page of the jobs, newest first; ``cursor`` is the last page's ``next``."""
        return await self.ask(queue_calls.probe_jobs(state, campaign, limit, cursor))

    def each_probe_job(
        self, *, state: queue_answers.State | None = None, campaign: int | None = None
    ) -> AsyncIterator[queue_answers.JobAnswer]:
        """Every job, newest first, page after page."""
        return self._each(lambda cursor: queue_calls.probe_jobs(state, campaign, None, cursor))

    async def probe_job(self, id: int) -> queue_answers.JobWithHistory:
        """A job with all that has happened to it."""
        return await self.ask(queue_calls.probe_job(id))

    async def cancel_probe_job(self, id: int) -> queue_answers.JobAnswer:
        """End a job that is queued or leased; its worker stops within seconds."""
        return await self.ask(queue_calls.cancel_probe_job(id))

    async def retry_probe_job(self, id: int) -> queue_answers.JobAnswer:
        """Queue a job again that has ended without a result; not sent again once it may have arrived."""
        return await self.ask(queue_calls.retry_probe_job(id))

    async def add_measurements(self, measurements: Iterable[Mapping[str, Any]]) -> queue_answers.ImportedAnswer:
        """Keep what ``ctxplan probe --json`` has measured elsewhere, all or none, each once; at most 200."""
        return await self.ask(queue_calls.add_measurements(measurements))

    async def measurements(
        self,
        *,
        state: queue_answers.MeasurementState | None = None,
        campaign: int | None = None,
        point: str | None = None,
        job: int | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> queue_answers.MeasurementListing:
        """A page of the measurements, newest first; ``point`` is a digest."""
        return await self.ask(queue_calls.measurements(state, campaign, point, job, limit, cursor))

    def each_measurement(
        self,
        *,
        state: queue_answers.MeasurementState | None = None,
        campaign: int | None = None,
        point: str | None = None,
        job: int | None = None,
    ) -> AsyncIterator[queue_answers.MeasurementAnswer]:
        """Every measurement, newest first, page after page."""
        return self._each(lambda cursor: queue_calls.measurements(state, campaign, point, job, None, cursor))

    async def measurement(self, id: int) -> queue_answers.MeasurementAnswer:
        """A measurement, by its number."""
        return await self.ask(queue_calls.measurement(id))

    async def release_measurement(self, id: int, *, why: str | None = None) -> queue_answers.MeasurementAnswer:
        """Let fits read a quarantined measurement."""
        return await self.ask(queue_calls.release_measurement(id, why))

    async def campaigns(
        self,
        *,
        state: queue_answers.CampaignState | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> queue_answers.CampaignListing:
        """A page of the campaigns, newest first; ``cursor`` is the last page's ``next``."""
        return await self.ask(queue_calls.campaigns(state, limit, cursor))

    def each_campaign(
        self, *, state: queue_answers.CampaignState | None = None
    ) -> AsyncIterator[queue_answers.CampaignAnswer]:
        """Every campaign, newest first, page after page."""
        return self._each(lambda cursor: queue_calls.campaigns(state, None, cursor))

    async def campaign(self, id: int) -> queue_answers.CampaignAnswer:
        """How far a campaign is, and what was fitted in the end."""
        return await self.ask(queue_calls.campaign(id))

    async def cancel_campaign(self, id: int) -> queue_answers.CampaignAnswer:
        """End a campaign that measures, and its jobs; not sent again once it may have arrived."""
        return await self.ask(queue_calls.cancel_campaign(id))

    async def watch_campaign(self, id: int) -> AsyncGenerator[queue_answers.CampaignAnswer, None]:
        """A campaign now and whenever it changes, until it has ended; a connection that breaks off is made anew."""
        watch = Watch(queue_calls.watch_campaign(id), self._retries)
        while not watch.ended:
            async for told in self._listen(watch):
                yield told
            if not watch.ended:
                await self._sleep(watch.wait_seconds())

    async def workers(self) -> list[queue_answers.WorkerAnswer]:
        """Every worker that was ever seen, with when that was last."""
        return await self.ask(queue_calls.workers())

    async def drain_worker(self, id: str, *, draining: bool = True) -> queue_answers.WorkerAnswer:
        """Give a worker no further job, or jobs again."""
        return await self.ask(queue_calls.drain_worker(id, draining))

    async def add_observations(self, observations: Iterable[Mapping[str, Any]]) -> queue_answers.KeptAnswer:
        """Keep what was seen of training runs (`ctxplan.observations`), all or none, each once; at most 200."""
        return await self.ask(queue_calls.add_observations(observations))

    async def observations(
        self,
        *,
        state: queue_answers.ObservationState | None = None,
        limit: int | None = None,
        cursor: str | None = None,
    ) -> queue_answers.ObservationListing:
        """A page of the observations, newest first; ``beyond`` are those beyond the bound."""
        return await self.ask(queue_calls.observations(state, limit, cursor))

    def each_observation(
        self, *, state: queue_answers.ObservationState | None = None
    ) -> AsyncIterator[queue_answers.ObservationAnswer]:
        """Every observation, newest first, page after page."""
        return self._each(lambda cursor: queue_calls.observations(state, None, cursor))

    async def _each(self, page_of: Callable[[str | None], Call[Any]]) -> AsyncIterator[Any]:
        cursor: str | None = None
        while True:
            page = await self.ask(page_of(cursor))
            for item in page["items"]:
                yield item
            cursor = page["next"]
            if cursor is None:
                return

    async def _listen(self, watch: Watch) -> AsyncIterator[queue_answers.CampaignAnswer]:
        """What one connection tells, until it ends."""
        try:
            async with self._http.stream(
                watch.call.method, watch.call.path, headers=watch.headers, timeout=watch.timeout(self._http.timeout)
            ) as response:
                if not watch.begin(response):
                    await response.aread()
                    watch.broken = response
                    return
                async for line in response.aiter_lines():
                    if (told := watch.hear(line)) is not None:
                        yield told
                    if watch.ended:
                        return
        except httpx.RequestError as error:
            watch.broken = error
