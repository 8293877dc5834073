"""The client for code that waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import httpx

from ctxplan.client import answers, calibration_answers, calls
from ctxplan.client.calls import JobLike, Trainer
from ctxplan.client.measuring import Measuring
from ctxplan.client.options import PreflightOptions, TokensOptions
from ctxplan.client.retries import Outcome, Retries
from ctxplan.client.wire import Call, answer_of, base_address, base_headers, content_of
from estimator import Estimate, MaxContext

T = TypeVar("T")


class Client(Measuring):
    """A service of ctxplan, asked over HTTP. Safe to share between threads.

        with Client("http://127.0.0.1:8000") as client:
            print(client.estimate({"model": "Qwen/Qwen3-8B", "max_seq_length": 32768}).verdict)

    Args:
        base_url: of the service, with the path that a proxy puts in front of its routes. api_key: where the service
            asks for one. timeout: seconds for each part of a request (connect, send, receive), or httpx's own.
        retries: how often to ask again, or `Retries` with the waits. transport: httpx's seam. sleep: waits so many
            seconds.

    Raises:
        ServiceError: an address or a key that is none. Every method raises what `ctxplan.client.errors` draws, and
            JobError for values that JSON has not.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        timeout: float | httpx.Timeout | None = 30.0,
        retries: int | Retries = 3,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._retries = Retries(most=retries) if isinstance(retries, int) else retries
        self._sleep = sleep
        self._http = httpx.Client(
            base_url=base_address(base_url), headers=base_headers(api_key), timeout=timeout, transport=transport
        )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._http.base_url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def estimate(self, job: JobLike) -> Estimate:
        """What a job needs on its GPU, and whether it fits."""
        return self.ask(calls.estimate(job))

    def max_context(self, job: JobLike) -> MaxContext:
        """The longest context of a job; its ``max_seq_length`` is ignored."""
        return self.ask(calls.max_context(job))

    def plan(self, job: JobLike, *, trainer: Trainer | None = None, limit: int | None = None) -> answers.PlanAnswer:
        """What to change in a job so that it fits, or to use its room; at most ``limit`` proposals."""
        return self.ask(calls.plan(job, trainer, limit))

    def script(self, job: JobLike) -> answers.ScriptAnswer:
        """A Python script that runs the job."""
        return self.ask(calls.script(job))

    def preflight(
        self, config: str | Mapping[str, Any], **options: Unpack[PreflightOptions]
    ) -> answers.PreflightAnswer:
        """Whether a launcher's config (its text, or what it holds) fits."""
        return self.ask(calls.preflight(config, options))

    def tokens(self, **options: Unpack[TokensOptions]) -> answers.TokensAnswer:
        """What token lengths, or texts and their tokenizer, ask of ``max_seq_length``."""
        return self.ask(calls.tokens(options))

    def models(self) -> list[answers.Model]:
        """The models that are known without asking the Hub."""
        return self.ask(calls.models())

    def gpus(self) -> list[answers.Gpu]:
        """The GPUs that are known by name."""
        return self.ask(calls.gpus())

    def tiers(self) -> list[answers.TierListing]:
        """Claims about long contexts, each with what its evidence says."""
        return self.ask(calls.tiers())

    def tier(self, name: str) -> answers.TierAnswer:
        """A tier with its whole evidence."""
        return self.ask(calls.tier(name))

    def calibrations(self, *, limit: int | None = None, after: str | None = None) -> calibration_answers.Listing:
        """A page of the calibrations, the newest first; ``after`` is the last page's ``next``."""
        return self.ask(calls.calibrations(limit, after))

    def calibration(self, id: str) -> calibration_answers.CalibrationAnswer:
        """A calibration, by its id, the digits that it begins with, or ``shipped``."""
        return self.ask(calls.calibration(id))

    def active_calibration(self) -> calibration_answers.ActiveAnswer:
        """The calibration that every answer is made with."""
        return self.ask(calls.active_calibration())

    def compare_calibrations(self, id: str, other: str) -> calibration_answers.ComparisonAnswer:
        """What differs between two calibrations, and how each answers what was measured."""
        return self.ask(calls.compare_calibrations(id, other))

    def fit_calibration(
        self, measurements: Iterable[Mapping[str, Any]], *, leave_out: Sequence[str] = ()
    ) -> calibration_answers.FittedAnswer:
        """Fit a calibration to measurements, as ``ctxplan probe --json`` prints them, and keep it."""
        return self.ask(calls.fit_calibration(measurements, leave_out))

    def activate_calibration(self, id: str, *, why: str | None = None) -> calibration_answers.ActivatedAnswer:
        """Have the service answer with a calibration from now on."""
        return self.ask(calls.activate_calibration(id, why))

    def roll_back_calibration(self, *, why: str | None = None) -> calibration_answers.ActivatedAnswer:
        """Have the service answer with the calibration before; not sent again once it may have arrived."""
        return self.ask(calls.roll_back_calibration(why))

    def health(self) -> answers.Health:
        """That the process answers; not asked again where it does not."""
        return self.ask(calls.health())

    def ready(self) -> answers.Readiness:
        """That the service can plan. Raises ServerFailed where it cannot, at once."""
        return self.ask(calls.ready())

    def metrics(self) -> str:
        """The service's counters, in Prometheus' text format."""
        return self.ask(calls.metrics())

    def ask(self, call: Call[T]) -> T:
        """Send a call of `ctxplan.client.calls`, again where that may help, and read its answer."""
        request = self._http.build_request(
            call.method, call.path, params=call.params, content=content_of(call), headers=call.headers
        )
        for sent in count(1):
            outcome = self._outcome(request)
            wait = self._retries.wait_seconds(outcome, sent=sent, repeatable=call.repeatable) if call.patient else None
            if wait is None:
                return answer_of(call, outcome)
            self._sleep(wait)
        raise AssertionError  # count() does not end

    def _outcome(self, request: httpx.Request) -> Outcome:
        try:
            return self._http.send(request)
        except httpx.RequestError as error:
            return error
