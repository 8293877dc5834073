"""Taking jobs in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.queue.errors import IdempotencyConflict, JobStateConflict, UnknownCampaign
from app.queue.history import RECORD, event
from app.queue.requests import JobRequest, Submission, digest_of
from app.queue.states import CampaignState, EventKind, State
from app.queue.tables import CAMPAIGNS, JOBS, REQUIREMENTS, SUBMISSIONS, insert_new
from app.queue.views import Submitted


async def submit(connection: AsyncConnection, submission: Submission, now: datetime) -> Submitted:
    """Take the jobs, or find those of the same submission.

    Raises:
        IdempotencyConflict: the submitter's key stands for something else. UnknownCampaign, JobStateConflict: the
            campaign that they are for is not there, or measures no more.
    """
    submission_id = await _begin(connection, submission, now)
    if submission_id is None:
        return await _again(connection, submission)
    campaign_id = await _campaign(connection, submission, now)
    if campaign_id is not None:
        named = update(SUBMISSIONS).where(SUBMISSIONS.c.id == submission_id).values(campaign_id=campaign_id)
        await connection.execute(named)
    requirements = await _requirements(connection, submission.jobs)
    rows = [
        {**_row(job, now), "submission_id": submission_id, "position": position, "campaign_id": campaign_id}
        | {"requirement_id": requirements[_requirement(job)]}
        for position, job in enumerate(submission.jobs)
    ]
    inserted = await connection.execute(insert(JOBS).returning(JOBS.c.id, sort_by_parameter_order=True), rows)
    ids = tuple(inserted.scalars())
    await connection.execute(RECORD, [event(job_id, 1, now, EventKind.SUBMITTED, epoch=0) for job_id in ids])
    return Submitted(submission_id=submission_id, campaign_id=campaign_id, job_ids=ids)


async def _begin(connection: AsyncConnection, submission: Submission, now: datetime) -> int | None:
    """The submission's id, or None where its key is taken. Another transaction with the same key is waited for."""
    statement = insert_new(connection, SUBMISSIONS).values(
        submitter=submission.submitter,
        idempotency_key=submission.idempotency_key,
        body_digest=submission.body_digest,
        created_at=now,
    )
    statement = statement.on_conflict_do_nothing(index_elements=["submitter", "idempotency_key"])
    found: int | None = (await connection.execute(statement.returning(SUBMISSIONS.c.id))).scalar_one_or_none()
    return found


async def _again(connection: AsyncConnection, submission: Submission) -> Submitted:
    table = SUBMISSIONS.c
    found = await connection.execute(
        select(table.id, table.body_digest, table.campaign_id).where(
            table.submitter == submission.submitter, table.idempotency_key == submission.idempotency_key
        )
    )
    row = found.one()
    if row.body_digest != submission.body_digest:
        raise IdempotencyConflict("was used with another request", key="idempotency_key", allowed="a new key")
    ids = await connection.execute(select(JOBS.c.id).where(JOBS.c.submission_id == row.id).order_by(JOBS.c.position))
    return Submitted(submission_id=row.id, campaign_id=row.campaign_id, job_ids=tuple(ids.scalars()), replayed=True)


async def _campaign(connection: AsyncConnection, submission: Submission, now: datetime) -> int | None:
    """The campaign that the jobs belong to, begun or added to."""
    points = len(submission.jobs)
    if submission.campaign_model is not None:
        begun = insert(CAMPAIGNS).values(
            model=submission.campaign_model, state=CampaignState.MEASURING, points=points, created_at=now
        )
        campaign_id: int = (await connection.execute(begun.returning(CAMPAIGNS.c.id))).scalar_one()
        return campaign_id
    if submission.campaign_id is None:
        return None
    locked = select(CAMPAIGNS.c.state).where(CAMPAIGNS.c.id == submission.campaign_id).with_for_update()
    state = (await connection.execute(locked)).scalar_one_or_none()
    if state is None:
        raise UnknownCampaign(submission.campaign_id)
    if state != CampaignState.MEASURING:
        raise JobStateConflict(f"the campaign is {state}", key="campaign_id", allowed="one that is measuring")
    added = update(CAMPAIGNS).where(CAMPAIGNS.c.id == submission.campaign_id)
    await connection.execute(added.values(points=CAMPAIGNS.c.points + points))
    return submission.campaign_id


async def _requirements(connection: AsyncConnection, jobs: Sequence[JobRequest]) -> dict[str, int]:
    """Ids by digest of the kinds of worker that the jobs need; new kinds are added."""
    wanted = {_requirement(job): job for job in jobs}
    # One order for all, so that two submissions never wait for each other.
    new = [{"digest": digest, "gpu": job.gpu, "versions": dict(job.versions)} for digest, job in sorted(wanted.items())]
    statement = insert_new(connection, REQUIREMENTS).on_conflict_do_nothing(index_elements=["digest"])
    for one in new:
        await connection.execute(statement, one)
    found = select(REQUIREMENTS.c.digest, REQUIREMENTS.c.id).where(REQUIREMENTS.c.digest.in_(wanted))
    return {row.digest: row.id for row in await connection.execute(found)}


def _requirement(job: JobRequest) -> str:
    return digest_of({"gpu": job.gpu, "versions": dict(job.versions)})


def _row(job: JobRequest, now: datetime) -> dict[str, Any]:
    return {
        "point": dict(job.point),
        "point_digest": digest_of(job.point),
        "min_total_bytes": job.min_total_bytes,
        "priority": job.priority,
        "state": State.QUEUED,
        "attempts": 0,
        "max_attempts": job.max_attempts,
        "losses": 0,
        "epoch": 0,
        "last_seq": 1,
        "failures": [],
        "created_at": now,
        "expires_at": None if job.expires_in is None else now + job.expires_in,
    }
