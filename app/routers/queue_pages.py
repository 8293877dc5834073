"""Pages of the queue: jobs and what they gave, campaigns as they go, and the workers. Each has its JSON under ``/v1``,
which its own address gives to a program as well."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from app.answers import json_answer
from app.dependencies import jobs_of
from app.jobs.reading import MAX_WHY
from app.jobs.service import Jobs
from app.page.forms import fields_of
from app.page.queue import STATES, given_of, is_live, progress_of, quarantined_of, row_of, workers_of
from app.pages import HEADERS, page
from app.queue import CampaignState, State
from app.queue.states import FINAL
from app.routers.calibrations import calibrations_of
from app.routers.campaigns import CampaignId
from app.routers.page_route import PageRoute, wants_json
from app.routers.probe_jobs import Campaign, Cursor, JobId
from app.security import ADMIN, MEASURE, Administering, Gate
from estimator.errors import JobError

router = APIRouter(route_class=PageRoute, tags=["pages"], include_in_schema=False)

JOBS_OF_A_PAGE = 50
JOBS_OF_A_CAMPAIGN = 200
CAMPAIGNS_OF_A_PAGE = 25
MOST_LEASED = 500
SEE_OTHER = 303


@router.get("/jobs", dependencies=[MEASURE])
async def jobs(
    request: Request, state: State | None = None, campaign: Campaign = None, cursor: Cursor = None
) -> Response:
    """The jobs, newest first, and what waits for which card."""
    queue = jobs_of(request)
    found = await queue.page(state=state, campaign=campaign, limit=JOBS_OF_A_PAGE, cursor=cursor)
    if wants_json(request):
        return json_answer(found)
    depth = await (await queue.backend.jobs()).depth()
    quarantined = await quarantined_of(queue.backend, found["items"])
    rows = [row_of(one, quarantined) for one in found["items"]]
    asked: dict[str, Any] = {"state": state.value if state else None, "campaign": campaign, "states": STATES}
    asked["nobody_measures"] = bool(depth) and await _nobody_measures(queue)
    return page(
        request, "jobs.html", rows=rows, next=found["next"], cursor=cursor, depth=depth, **asked, **_now(request)
    )


@router.get("/jobs/{id}", dependencies=[MEASURE])
async def job(request: Request, id: JobId) -> Response:
    """One job, all that has happened to it, and what it gave."""
    queue = jobs_of(request)
    found = await queue.job(id)
    if wants_json(request):
        return json_answer(found)
    rows = await queue.measurements(job=id, limit=1, cursor=None)
    given = await given_of(rows["items"], calibrations_of(request).calibration)
    is_over = State(found["state"]) in FINAL
    row = row_of(found, [id for one in rows["items"] if one["state"] == "quarantined"])
    shown: dict[str, Any] = {"row": row, "given": given, "is_over": is_over, "longest_why": MAX_WHY}
    return page(request, "job.html", **shown, **_now(request))


@router.post("/jobs/{id}/cancellation", dependencies=[MEASURE])
async def cancel_job(request: Request, id: JobId) -> Response:
    """End a job, and show it."""
    await jobs_of(request).cancel(id)
    return _see(f"/jobs/{id}")


@router.post("/jobs/{id}/retry", dependencies=[MEASURE])
async def retry_job(request: Request, id: JobId) -> Response:
    """Queue a job again, and show it."""
    await jobs_of(request).retry(id)
    return _see(f"/jobs/{id}")


@router.post("/jobs/{id}/release")
async def release_job(request: Request, id: JobId, principal: Administering) -> Response:
    """Let fits read the measurement of a job that was quarantined, and show the job."""
    fields = await fields_of(request)
    queue = jobs_of(request)
    given = (await queue.measurements(job=id, limit=1, cursor=None))["items"]
    if not given:
        raise HTTPException(404, "the job has given no measurement")
    why = fields.get("why", "").strip()
    await queue.release(given[0]["id"], {"why": why} if why else {}, by=principal.name)
    return _see(f"/jobs/{id}")


@router.get("/campaigns", dependencies=[MEASURE])
async def campaigns(request: Request, state: CampaignState | None = None, cursor: Cursor = None) -> Response:
    """The campaigns, newest first, each with how far it is."""
    found = await jobs_of(request).campaigns(state=state, limit=CAMPAIGNS_OF_A_PAGE, cursor=cursor)
    if wants_json(request):
        return json_answer(found)
    rows = [(one, progress_of(one)) for one in found["items"]]
    live = any(is_live(one) for one in found["items"])
    shown: dict[str, Any] = {"rows": rows, "next": found["next"], "cursor": cursor, "live": live}
    shown["nobody_measures"] = live and await _nobody_measures(jobs_of(request))
    return page(request, "campaigns.html", **shown, **_now(request))


@router.get("/campaigns/{id}", dependencies=[MEASURE])
async def campaign(request: Request, id: CampaignId) -> Response:
    """One campaign: how far it is, its jobs, and in the end what was fitted."""
    queue = jobs_of(request)
    found = await queue.campaign(id)
    if wants_json(request):
        return json_answer(found)
    listed = await queue.page(state=None, campaign=id, limit=JOBS_OF_A_CAMPAIGN, cursor=None)
    quarantined = await quarantined_of(queue.backend, listed["items"])
    rows = [row_of(one, quarantined) for one in listed["items"]]
    shown: dict[str, Any] = {
        "campaign": found,
        "far": progress_of(found),
        "rows": rows,
        "more": listed["next"] is not None,
        "live": is_live(found),
        "nobody_measures": is_live(found) and await _nobody_measures(queue),
    }
    return page(request, "campaign.html", **shown, **_now(request))


@router.post("/campaigns/{id}/cancellation", dependencies=[MEASURE])
async def cancel_campaign(request: Request, id: CampaignId) -> Response:
    """End a campaign with its jobs, and show it."""
    await jobs_of(request).cancel_campaign(id)
    return _see(f"/campaigns/{id}")


@router.get("/workers", dependencies=[MEASURE])
async def workers(request: Request) -> Response:
    """The machines that lend their GPUs, and what each is doing."""
    queue = jobs_of(request)
    found = await queue.workers()
    if wants_json(request):
        return json_answer(found)
    leased = await queue.page(state=State.LEASED, campaign=None, limit=MOST_LEASED, cursor=None)
    backend = queue.backend
    silent = backend.limits.lease_seconds
    rows = workers_of(found["items"], leased["items"], now=backend.clock(), lease_seconds=silent)
    return page(request, "workers.html", rows=rows, **_now(request))


@router.post("/workers/draining", dependencies=[ADMIN])
async def drain_worker(request: Request) -> Response:
    """Give a worker no further job, or jobs again. Its name is a field of the form: a path could not hold every one."""
    fields = await fields_of(request)
    if fields.get("draining") not in ("true", "false"):
        raise JobError("is not accepted", key="draining", allowed="true, false")
    await jobs_of(request).drain(fields.get("worker", ""), {"draining": fields["draining"] == "true"})
    return _see("/workers")


def _see(address: str) -> Response:
    """Go on to a page that may be asked for again, as this request may not."""
    return RedirectResponse(address, SEE_OTHER, headers=HEADERS)


def _now(request: Request) -> dict[str, Any]:
    """The time that ages are counted to, and the service's address for what is shown to be copied, which may need a
    key."""
    gate: Gate = request.state.gate
    address = str(request.base_url).rstrip("/")
    return {"now": jobs_of(request).backend.clock(), "address": address, "needs_key": gate.required}


async def _nobody_measures(queue: Jobs) -> bool:
    """Whether no worker was heard of lately."""
    workers = (await queue.workers())["items"]
    rows = workers_of(workers, [], now=queue.backend.clock(), lease_seconds=queue.backend.limits.lease_seconds)
    return all(row.is_silent for row in rows)
