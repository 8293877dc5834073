"""From a job as it is written to its answer: read the job, find the model's shape, ask the estimator.

The command line, the HTTP service and other people's code all answer through here, so they cannot give
different numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from threading import Lock
from typing import Any

import estimator
from ctxplan.calibrations import shipped
from ctxplan.models import ModelFacts, resolve_model
from estimator import Estimate, Job, MaxContext, parse_job
from estimator.advise import Advice, advise
from estimator.advise.plan import MOST_PROPOSALS
from estimator.calibration.document import Calibration
from estimator.errors import ArchitectureError
from estimator.resolve import Trainer

Model = str | Mapping[str, Any]
Resolve = Callable[..., ModelFacts]

MAX_REMEMBERED = 256
MAX_REMEMBERED_BYTES = 8 * 2**20
VOLATILE_SOURCES = frozenset({"directory"})
"""Where facts are read again each time: a directory's config.json may be edited between two questions."""


def estimate(job: Job | Mapping[str, Any]) -> Estimate:
    """Estimate what a job needs on its GPU, and whether it fits.

    Args:
        job: a `Job`, or the same as JSON values (``{"model": ..., "max_seq_length": ...}``).

    Raises:
        CtxplanError: the job, its model or its GPU cannot be planned; ``key`` names the part at fault.
    """
    return _planner.estimate(job)


def max_context(job: Job | Mapping[str, Any]) -> MaxContext:
    """Find the longest context of a job; arguments and errors are those of `estimate`."""
    return _planner.max_context(job)


def plan(job: Job | Mapping[str, Any], *, trainer: Trainer | None = None) -> Advice:
    """Find what to change in a job so that it fits, or to use the room that it leaves; as `estimate` otherwise."""
    return _planner.plan(job, trainer=trainer)


class Planner:
    """Answers questions about jobs, and remembers the models that it has seen.

    Args:
        offline: never ask the Hub. allow_local: read a model from a directory of this machine.
        resolve: finds a model's facts; a seam for tests.
        calibration: what is fitted to measurements; the shipped one by default.
    """

    def __init__(
        self,
        *,
        offline: bool = False,
        allow_local: bool = True,
        resolve: Resolve = resolve_model,
        calibration: Calibration | None = None,
    ) -> None:
        self._offline = offline
        self._allow_local = allow_local
        self._resolve = resolve
        self._calibration = calibration
        self._memory = FactsMemory()

    @property
    def calibration(self) -> Calibration:
        """What every answer is calibrated with; another one takes effect with the next answer."""
        return self._calibration or shipped()

    @calibration.setter
    def calibration(self, calibration: Calibration) -> None:
        self._calibration = calibration

    def estimate(
        self,
        job: Job | Mapping[str, Any],
        facts: ModelFacts | None = None,
        *,
        trainer: Trainer | None = None,
    ) -> Estimate:
        """Estimate a job.

        Args:
            facts: spares the look-up where the caller has made it. trainer: as `estimator.estimate` has it.
        """
        parsed = job if isinstance(job, Job) else parse_job(job)
        facts = facts or self.facts(parsed.model)
        answer = estimator.estimate(parsed, facts.architecture, self.calibration, trainer=trainer)
        return _with_assumptions(answer, facts)

    def max_context(self, job: Job | Mapping[str, Any], facts: ModelFacts | None = None) -> MaxContext:
        """Find the longest context of a job; ``facts`` as in `estimate`."""
        parsed = job if isinstance(job, Job) else parse_job(job)
        facts = facts or self.facts(parsed.model)
        answer = estimator.max_context(parsed, facts.architecture, self.calibration)
        if not facts.assumptions:
            return answer
        at_safe = _with_assumptions(answer.estimate, facts) if answer.estimate else None
        return replace(answer, assumptions=answer.assumptions + facts.assumptions, estimate=at_safe)

    def plan(
        self,
        job: Job | Mapping[str, Any],
        facts: ModelFacts | None = None,
        *,
        trainer: Trainer | None = None,
        limit: int = MOST_PROPOSALS,
    ) -> Advice:
        """Find what to change in a job; ``facts`` as in `estimate`, ``trainer`` and ``limit`` as in
        `estimator.advise.advise`."""
        parsed = job if isinstance(job, Job) else parse_job(job)
        facts = facts or self.facts(parsed.model)
        answer = advise(parsed, facts.architecture, self.calibration, trainer=trainer, limit=limit)
        return replace(answer, assumptions=answer.assumptions + facts.assumptions)

    def facts(self, model: Model) -> ModelFacts:
        """The model's shape and where it was read. May read the disk and the network.

        Raises:
            UnknownModel: not found. ArchitectureError: found, and not a shape that can be planned.
        """
        key = _memory_key(model)
        facts = self._memory.get(key)
        if facts is None:
            facts = self._looked_up(model)
            if facts.source not in VOLATILE_SOURCES:
                self._memory.put(key, facts)
        return facts

    def _looked_up(self, model: Model) -> ModelFacts:
        try:
            return self._resolve(model, offline=self._offline, allow_local=self._allow_local)
        except ArchitectureError as error:
            if isinstance(model, Mapping):
                # The reader of configs names the config's key; in the job that key is below "model".
                error.key = f"model.{error.key}" if error.key else "model"
            raise

    def remembered(self, model: Model) -> ModelFacts | None:
        """The model's facts where neither disk nor network is needed to know them, else None."""
        return self._memory.get(_memory_key(model))


class FactsMemory:
    """The most recently used facts, bounded by count and by weight; safe to share between threads."""

    def __init__(self, *, count: int = MAX_REMEMBERED, weight_bytes: int = MAX_REMEMBERED_BYTES) -> None:
        self._facts: OrderedDict[str, tuple[ModelFacts, int]] = OrderedDict()
        self._count = count
        self._weight_bytes = weight_bytes
        self._held_bytes = 0
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._facts)

    def get(self, key: str) -> ModelFacts | None:
        with self._lock:
            entry = self._facts.get(key)
            if entry is None:
                return None
            self._facts.move_to_end(key)
            return entry[0]

    def put(self, key: str, facts: ModelFacts) -> None:
        """Remember the facts, unless they alone are a quarter of what may be held."""
        weight = _weight_bytes(key, facts)
        if weight > self._weight_bytes // 4:
            return
        with self._lock:
            if key in self._facts:
                self._held_bytes -= self._facts.pop(key)[1]
            self._facts[key] = (facts, weight)
            self._held_bytes += weight
            while len(self._facts) > self._count or self._held_bytes > self._weight_bytes:
                _, (_, dropped) = self._facts.popitem(last=False)
                self._held_bytes -= dropped


def _with_assumptions(answer: Estimate, facts: ModelFacts) -> Estimate:
    return replace(answer, assumptions=answer.assumptions + facts.assumptions) if facts.assumptions else answer


def _memory_key(model: Model) -> str:
    """The model's name, or a digest of its config: equal configs share an entry, and a huge one costs no more
    to hold."""
    if isinstance(model, str):
        return model
    canonical = json.dumps(model, sort_keys=True, separators=(",", ":"))
    return "config:" + hashlib.sha256(canonical.encode()).hexdigest()


def _weight_bytes(key: str, facts: ModelFacts) -> int:
    """Roughly what an entry keeps alive: an architecture grows with its layers' indices and its groups'
    linears."""
    groups = facts.architecture.layers
    return 2048 + len(key) + sum(32 * len(group.indices) + 512 * len(group.linears) for group in groups)


_planner = Planner()
