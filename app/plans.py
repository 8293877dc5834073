"""Plans for concurrent callers: arithmetic of a fraction of a millisecond runs where it is asked, what takes tens of
them in a process of its own, and what may wait, a look-up, in a thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from app.apart import Apart
from app.preflight import Preflight, Question, at_config, model_of
from app.scripts import Script, write_script
from app.turns import Turns
from app.work import asked, checked
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
        apart: where the same planner's longer work is done. lookups: turns of what asks the Hub or the disk.
    """

    def __init__(self, planner: Planner, *, apart: Apart, lookups: Turns) -> None:
        self._planner = planner
        self._apart = apart
        self._lookups = lookups

    async def estimate(self, job: Job) -> Estimate:
        """What the job needs. Raises CtxplanError; Overloaded where too many wait for a look-up already."""
        return self._planner.estimate(job, await self._facts(job.model))

    async def max_context(self, job: Job) -> MaxContext:
        """The longest context of the job. Raises CtxplanError."""
        return self._planner.max_context(job, await self._facts(job.model))

    async def plan(self, job: Job, *, trainer: Trainer | None, limit: int) -> Advice:
        """What to change in the job. Raises CtxplanError; Overloaded where too many wait already."""
        facts = await self._facts(job.model)
        return await self._apart.do(Planner.plan, job, facts, trainer=trainer, limit=limit)

    async def script(self, job: Job) -> Script:
        """The script that runs the job. Raises CtxplanError."""
        facts = await self._facts(job.model)
        return write_script(job, self._planner.estimate(job, facts), facts.architecture)

    async def preflight(self, question: Question) -> Preflight:
        """Whether a config's job fits. Raises CtxplanError; Overloaded where too many wait already."""
        try:
            facts = await self._facts(model_of(question))
        except CtxplanError as error:
            raise at_config(error, question.reading) from None
        return await self._apart.do(checked, question, facts)

    async def is_able(self) -> bool:
        """Whether longer work is done."""
        return await self._apart.is_able()

    async def ask(self, model: str | Mapping[str, Any], question: Callable[[Planner, ModelFacts], Asked]) -> Asked:
        """Answer several things of one model at once.

        Args:
            question: a module's function, or a partial of one; so that it can be asked in another process.

        Raises:
            CtxplanError: Overloaded where too many wait already.
        """
        return await self._apart.do(asked, question, await self._facts(model))

    async def _facts(self, model: str | Mapping[str, Any]) -> ModelFacts:
        if isinstance(model, str) and (remembered := self._planner.remembered(model)) is not None:
            return remembered
        return await self._lookups.in_thread(self._planner.facts, model)
