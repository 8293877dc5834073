"""Every question about plans and calibrations, as a `Call`: one function a route."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal
from urllib.parse import quote

import httpx

from ctxplan.client import answers, calibration_answers
from ctxplan.client.options import PreflightOptions, TokensOptions
from ctxplan.client.reading import estimate_from_json, max_context_from_json
from ctxplan.client.wire import Call, json_object
from estimator import Estimate, Job, MaxContext, job_to_json

JobLike = Job | Mapping[str, Any]
Trainer = Literal["sft", "loop"]


def estimate(job: JobLike) -> Call[Estimate]:
    return Call(method="POST", path="/v1/estimates", body=job_of(job), read=_estimate)


def max_context(job: JobLike) -> Call[MaxContext]:
    return Call(method="POST", path="/v1/max-context", body=job_of(job), read=_max_context)


def plan(job: JobLike, trainer: Trainer | None, limit: int | None) -> Call[answers.PlanAnswer]:
    params = given(trainer=trainer, limit=limit)
    return Call(method="POST", path="/v1/plans", body=job_of(job), params=params, read=document_of)


def script(job: JobLike) -> Call[answers.ScriptAnswer]:
    return Call(method="POST", path="/v1/scripts", body=job_of(job), read=document_of)


def preflight(config: str | Mapping[str, Any], options: PreflightOptions) -> Call[answers.PreflightAnswer]:
    body = {"config": _plain(config), **given(**options)}
    return Call(method="POST", path="/v1/preflight", body=body, read=document_of)


def tokens(options: TokensOptions) -> Call[answers.TokensAnswer]:
    return Call(method="POST", path="/v1/tokens", body=given(**options), read=document_of)


def models() -> Call[list[answers.Model]]:
    return Call(method="GET", path="/v1/models", read=items_of)


def gpus() -> Call[list[answers.Gpu]]:
    return Call(method="GET", path="/v1/gpus", read=items_of)


def tiers() -> Call[list[answers.TierListing]]:
    return Call(method="GET", path="/v1/tiers", read=items_of)


def tier(name: str) -> Call[answers.TierAnswer]:
    return Call(method="GET", path=f"/v1/tiers/{quote(name, safe='')}", read=document_of)


def calibrations(limit: int | None, after: str | None) -> Call[calibration_answers.Listing]:
    return Call(method="GET", path="/v1/calibrations", params=given(limit=limit, after=after), read=document_of)


def calibration(id: str) -> Call[calibration_answers.CalibrationAnswer]:
    return Call(method="GET", path=_calibration(id), read=document_of)


def active_calibration() -> Call[calibration_answers.ActiveAnswer]:
    return Call(method="GET", path="/v1/calibrations/active", read=document_of)


def compare_calibrations(id: str, other: str) -> Call[calibration_answers.ComparisonAnswer]:
    return Call(method="GET", path=f"{_calibration(id)}/comparison", params={"with": other}, read=document_of)


def fit_calibration(
    measurements: Iterable[Mapping[str, Any]], leave_out: Sequence[str]
) -> Call[calibration_answers.FittedAnswer]:
    # Kept by the hash of its content: a second fit to the same measurements finds the first one's.
    body = {"measurements": [dict(one) for one in measurements], "leave_out": list(leave_out)}
    return Call(method="POST", path="/v1/calibrations", body=body, read=document_of)


def activate_calibration(id: str, why: str | None) -> Call[calibration_answers.ActivatedAnswer]:
    path = f"{_calibration(id)}/activation"
    return Call(method="POST", path=path, body=given(why=why), read=document_of)


def roll_back_calibration(why: str | None) -> Call[calibration_answers.ActivatedAnswer]:
    # Two rollbacks go two steps back: one whose answer was lost on the way is not sent again.
    path = "/v1/calibrations/rollback"
    return Call(method="POST", path=path, body=given(why=why), read=document_of, repeatable=False)


def health() -> Call[answers.Health]:
    return Call(method="GET", path="/healthz", read=document_of, patient=False)


def ready() -> Call[answers.Readiness]:
    return Call(method="GET", path="/readyz", read=document_of, patient=False)


def metrics() -> Call[str]:
    return Call(method="GET", path="/metrics", read=_text)


def _estimate(response: httpx.Response) -> Estimate:
    return estimate_from_json(json_object(response))


def _max_context(response: httpx.Response) -> MaxContext:
    return max_context_from_json(json_object(response))


def document_of(response: httpx.Response) -> Any:
    """An object. Raises ValueError for anything else."""
    return json_object(response)


def _text(response: httpx.Response) -> str:
    return response.text


def items_of(response: httpx.Response) -> Any:
    """The items of a listing that has one page. Raises ValueError without them."""
    items = json_object(response)["items"]
    if not isinstance(items, list):
        raise ValueError("no list of items")  # noqa: TRY004 - a wrong answer, not a wrong argument
    return items


def _calibration(id: str) -> str:
    return f"/v1/calibrations/{quote(id, safe='')}"


def job_of(job: JobLike) -> dict[str, Any]:
    """A job as JSON values."""
    return job_to_json(job) if isinstance(job, Job) else dict(job)


def _plain(config: str | Mapping[str, Any]) -> str | dict[str, Any]:
    return config if isinstance(config, str) else dict(config)


def given(**options: Any) -> dict[str, Any]:
    """The options that are not None, jobs and mappings as plain values."""
    return {key: _value(value) for key, value in options.items() if value is not None}


def _value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return list(value)
    return value
