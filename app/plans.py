"""Plans for concurrent callers: what may wait or is long to read, a look-up or a config, runs in a thread; arithmetic
runs where it is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread

from app.admission import Overloaded
from app.metrics import Metrics
from app.preflight import Preflight, Question, check, model_of
from app.scripts import Script, write_script
from app.settings import Settings
from ctxplan.models import ModelFacts
from ctxplan.planning import Planner
from estimator import Estimate, Job, MaxContext
from estimator.advise import Advice
from estimator.errors import CtxplanError
from estimator.resolve import Trainer

Asked = TypeVar("Asked")


class Plans:
    """The planner, as the service's routes use it.

    Args:
        settings: how many look-ups may wait at once, how much is worked on in threads, and how much may wait for them.
    """

    def __init__(self, planner: Planner, settings: Settings, *, metrics: Metrics) -> None:
        self._planner = planner
        self._metrics = metrics
        self._lookups = CapacityLimiter(settings.lookup_threads)
        self._workers = CapacityLimiter(settings.planning_threads)
        self._max_waiting = settings.max_waiting_plans

    async def estimate(self, job: Job) -> Estimate:
        """What the job needs. Raises CtxplanError."""
        return self._planner.estimate(job, await self._facts(job.model))

    async def max_context(self, job: Job) -> MaxContext:
        """The longest context of the job. Raises CtxplanError."""
        return self._planner.max_context(job, await self._facts(job.model))

    async def plan(self, job: Job, *, trainer: Trainer | None, limit: int) -> Advice:
        """What to change in the job: tens of milliseconds, so in a thread. Raises CtxplanError."""
        facts = await self._facts(job.model)
        return await self._worked(partial(self._planner.plan, job, facts, trainer=trainer, limit=limit))

    async def script(self, job: Job) -> Script:
        """The script that runs the job. Raises CtxplanError."""
        facts = await self._facts(job.model)
        return write_script(job, self._planner.estimate(job, facts), facts.architecture)

    async def preflight(self, question: Question) -> Preflight:
        """Whether a config's job fits: tens of milliseconds, so in a thread. Raises CtxplanError."""
        work = partial(check, question, self._planner)
        try:
            await self._facts(model_of(question))
        except CtxplanError:
            # The check says it with the config's line. It looks the model up once more, so not where plans are made.
            return await to_thread.run_sync(work, limiter=self._lookups)
        return await self._worked(work)

    async def ask(self, model: str | Mapping[str, Any], question: Callable[[Planner, ModelFacts], Asked]) -> Asked:
        """Answer several things of one model at once, in a thread. Raises CtxplanError."""
        return await self._worked(partial(question, self._planner, await self._facts(model)))

    async def _worked(self, work: Callable[[], Asked]) -> Asked:
        """Work in a thread, after those that came before. Raises Overloaded where too many wait already."""
        threads = self._workers
        if threads.available_tokens < 1 and threads.statistics().tasks_waiting >= self._max_waiting:
            self._metrics.shed("threads")
            raise Overloaded
        return await to_thread.run_sync(work, limiter=threads)

    async def _facts(self, model: str | Mapping[str, Any]) -> ModelFacts:
        if isinstance(model, str) and (remembered := self._planner.remembered(model)) is not None:
            return remembered
        return await to_thread.run_sync(self._planner.facts, model, limiter=self._lookups)
