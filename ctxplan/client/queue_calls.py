"""Every question about what is measured, as a `Call`: one function a route, but for three kinds of submission."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from ctxplan.client.calls import JobLike, document_of, given, items_of, job_of
from ctxplan.client.errors import ServiceError
from ctxplan.client.options import CampaignOptions, SubmitOptions
from ctxplan.client.queue_answers import (
    CampaignAnswer,
    CampaignListing,
    CampaignState,
    ImportedAnswer,
    JobAnswer,
    JobListing,
    JobWithHistory,
    KeptAnswer,
    MeasurementAnswer,
    MeasurementListing,
    MeasurementState,
    ObservationListing,
    ObservationState,
    State,
    SubmittedAnswer,
    WorkerAnswer,
)
from ctxplan.client.wire import Call

_KEY = re.compile("[!-~]{1,200}")
KEY_ALLOWED = "1 to 200 ASCII characters that can be seen"

JOBS, MEASUREMENTS, CAMPAIGNS = "/v1/probe-jobs", "/v1/measurements", "/v1/campaigns"
WORKERS, OBSERVATIONS = "/v1/workers", "/v1/observations"


def submit_point(point: Mapping[str, Any], options: SubmitOptions) -> Call[SubmittedAnswer]:
    return _submission({"point": dict(point)}, options)


def submit_points(points: Iterable[Mapping[str, Any]], options: SubmitOptions) -> Call[SubmittedAnswer]:
    return _submission({"points": [dict(one) for one in points]}, options)


def start_campaign(model: str | JobLike, options: CampaignOptions) -> Call[SubmittedAnswer]:
    return _submission({"calibrate": model if isinstance(model, str) else job_of(model)}, options)


def probe_jobs(state: State | None, campaign: int | None, limit: int | None, cursor: str | None) -> Call[JobListing]:
    return _page(JOBS, state=state, campaign=campaign, limit=limit, cursor=cursor)


def probe_job(id: int) -> Call[JobWithHistory]:
    return Call(method="GET", path=f"{JOBS}/{id}", read=document_of)


def cancel_probe_job(id: int) -> Call[JobAnswer]:
    return Call(method="POST", path=f"{JOBS}/{id}/cancellation", read=document_of)


def retry_probe_job(id: int) -> Call[JobAnswer]:
    # By the time that a second one arrives, the job may have failed again: it would be queued a second time.
    return Call(method="POST", path=f"{JOBS}/{id}/retry", read=document_of, repeatable=False)


def add_measurements(measurements: Iterable[Mapping[str, Any]]) -> Call[ImportedAnswer]:
    # Each is kept once, by the hash of its content.
    body = {"measurements": [dict(one) for one in measurements]}
    return Call(method="POST", path=MEASUREMENTS, body=body, read=document_of)


def measurements(
    state: MeasurementState | None,
    campaign: int | None,
    point: str | None,
    job: int | None,
    limit: int | None,
    cursor: str | None,
) -> Call[MeasurementListing]:
    return _page(MEASUREMENTS, state=state, campaign=campaign, point=point, job=job, limit=limit, cursor=cursor)


def measurement(id: int) -> Call[MeasurementAnswer]:
    return Call(method="GET", path=f"{MEASUREMENTS}/{id}", read=document_of)


def release_measurement(id: int, why: str | None) -> Call[MeasurementAnswer]:
    return Call(method="POST", path=f"{MEASUREMENTS}/{id}/release", body=given(why=why), read=document_of)


def campaigns(state: CampaignState | None, limit: int | None, cursor: str | None) -> Call[CampaignListing]:
    return _page(CAMPAIGNS, state=state, limit=limit, cursor=cursor)


def campaign(id: int) -> Call[CampaignAnswer]:
    return Call(method="GET", path=f"{CAMPAIGNS}/{id}", read=document_of)


def cancel_campaign(id: int) -> Call[CampaignAnswer]:
    # A second one that arrives finds it ended, which is a conflict and not the answer that was lost.
    return Call(method="POST", path=f"{CAMPAIGNS}/{id}/cancellation", read=document_of, repeatable=False)


def watch_campaign(id: int) -> Call[CampaignAnswer]:
    return Call(method="GET", path=f"{CAMPAIGNS}/{id}/events", read=document_of)


def workers() -> Call[list[WorkerAnswer]]:
    return Call(method="GET", path=WORKERS, read=items_of)


def drain_worker(id: str, draining: bool) -> Call[WorkerAnswer]:
    path = f"{WORKERS}/{quote(id, safe='')}/draining"
    return Call(method="POST", path=path, body={"draining": draining}, read=document_of)


def add_observations(observations: Iterable[Mapping[str, Any]]) -> Call[KeptAnswer]:
    # Each is kept once, by the hash of its content.
    body = {"observations": [dict(one) for one in observations]}
    return Call(method="POST", path=OBSERVATIONS, body=body, read=document_of)


def observations(state: ObservationState | None, limit: int | None, cursor: str | None) -> Call[ObservationListing]:
    return _page(OBSERVATIONS, state=state, limit=limit, cursor=cursor)


def _submission(what: Mapping[str, Any], options: SubmitOptions) -> Call[SubmittedAnswer]:
    beside: dict[str, Any] = dict(options)
    # Made here and not where it is sent: it is the same each time that the call is sent.
    key = beside.pop("idempotency_key", None)
    if key is not None and not _KEY.fullmatch(key):
        raise ServiceError("is no idempotency key", key="idempotency_key", allowed=KEY_ALLOWED)
    key = key or uuid4().hex
    return Call(method="POST", path=JOBS, body={**what, **given(**beside)}, key=key, read=document_of)


def _page(path: str, **asked: Any) -> Call[Any]:
    return Call(method="GET", path=path, params=given(**asked), read=document_of)
