from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from app.queue import (
    CampaignState,
    IdempotencyConflict,
    InvalidSubmission,
    JobRequest,
    JobStateConflict,
    State,
    Submission,
    UnknownCampaign,
    UnknownJob,
)
from app.queue.requests import digest_of
from estimator import parse_job
from probes.points import Point
from tests.app.queue.helpers import Queue, job


def submission(*jobs: JobRequest, **changes: Any) -> Submission:
    return Submission(submitter=changes.pop("submitter", "me"), jobs=jobs or (job(),), **changes)


async def test_a_job_is_queued_as_it_was_asked_for(queue: Queue) -> None:
    asked = job(
        4, gpu="H100-80GB", min_total_bytes=7, versions={"torch": "2.9.0"}, priority=5, expires_in=timedelta(hours=1)
    )
    (job_id,) = await queue.add(asked)
    seen = await queue.store.get(job_id)
    assert (seen.state, seen.point, seen.gpu, seen.versions) == (State.QUEUED, asked.point, asked.gpu, asked.versions)
    assert (seen.min_total_bytes, seen.priority, seen.attempts, seen.epoch) == (7, 5, 0, 0)
    assert (seen.created_at, seen.expires_at) == (queue.clock.now, queue.clock.now + timedelta(hours=1))
    assert await queue.kinds(job_id) == ["submitted"]


async def test_the_jobs_of_a_submission_are_numbered_in_its_order(queue: Queue) -> None:
    ids = await queue.add(*(job(steps) for steps in range(2, 40)))
    assert list(ids) == sorted(ids)
    assert [(await queue.store.get(one)).point["steps"] for one in ids] == list(range(2, 40))


def test_a_points_digest_is_the_one_that_the_probes_give_it() -> None:
    point = Point(job=parse_job({"model": "unsloth/Llama-3.2-1B-Instruct"}), trainer="sft")
    assert digest_of(point.to_json()) == point.digest


async def test_the_same_key_and_body_give_the_same_jobs_once(queue: Queue) -> None:
    asked = submission(job(2), job(3), idempotency_key="k", campaign_model="a/model")
    first, again = await queue.store.submit(asked), await queue.store.submit(asked)
    assert (again.job_ids, again.campaign_id, again.submission_id) == (
        first.job_ids,
        first.campaign_id,
        first.submission_id,
    )
    assert (first.replayed, again.replayed) == (False, True)
    assert len((await queue.store.list()).items) == 2


@pytest.mark.parametrize(
    "other",
    [
        submission(job(4), idempotency_key="k"),
        submission(job(3), job(3), idempotency_key="k"),
        submission(job(3, priority=1), idempotency_key="k"),
        submission(job(3, gpu="L4-24GB"), idempotency_key="k"),
        submission(job(3, expires_in=timedelta(1)), idempotency_key="k"),
        submission(job(3), idempotency_key="k", campaign_model="a/model"),
    ],
)
async def test_the_same_key_with_another_body_is_a_conflict_and_changes_nothing(
    queue: Queue, other: Submission
) -> None:
    await queue.store.submit(submission(job(3), idempotency_key="k"))
    with pytest.raises(IdempotencyConflict) as refused:
        await queue.store.submit(other)
    assert refused.value.key == "idempotency_key"
    assert len((await queue.store.list()).items) == 1


async def test_a_key_is_its_submitters_own_and_none_is_no_key(queue: Queue) -> None:
    asked = [
        submission(idempotency_key="k"),
        submission(idempotency_key="k", submitter="you"),
        submission(),
        submission(),
    ]
    ids = [(await queue.store.submit(one)).job_ids for one in asked]
    assert len(set(ids)) == 4


async def test_of_requests_with_one_key_that_come_at_once_one_is_taken(queue: Queue) -> None:
    done = await asyncio.gather(*(queue.store.submit(submission(idempotency_key="k")) for _ in range(8)))
    assert len({one.job_ids for one in done}) == 1
    assert sorted(one.replayed for one in done) == [False] + [True] * 7


async def test_a_submission_is_taken_whole_or_not_at_all(queue: Queue) -> None:
    with pytest.raises(UnknownCampaign):
        await queue.store.submit(submission(job(2), job(3), campaign_id=1_000_000, idempotency_key="k"))
    assert (await queue.store.list()).items == ()
    assert not (await queue.store.submit(submission(job(2), idempotency_key="k"))).replayed


async def test_a_campaign_counts_its_points_and_the_states_of_their_jobs(queue: Queue) -> None:
    begun = await queue.store.submit(submission(job(2), job(3), campaign_model="a/model"))
    assert begun.campaign_id is not None
    await queue.store.submit(submission(job(4), campaign_id=begun.campaign_id))
    await queue.take()
    campaign = await queue.store.campaign(begun.campaign_id)
    assert (campaign.model, campaign.state, campaign.points) == ("a/model", CampaignState.MEASURING, 3)
    assert campaign.jobs == {State.QUEUED: 2, State.LEASED: 1}


async def test_a_campaign_that_ends_cancels_what_of_its_jobs_has_not(queue: Queue) -> None:
    begun = await queue.store.submit(submission(job(2), job(3), campaign_model="a/model"))
    (other,) = await queue.add()
    assert begun.campaign_id is not None
    lease = await queue.take()
    await queue.store.complete(lease.key, {"outcome": "ok"})
    ended = await queue.store.finish_campaign(begun.campaign_id, CampaignState.CANCELLED)
    assert ended.jobs == {State.SUCCEEDED: 1, State.CANCELLED: 1}
    assert ended.finished_at == queue.clock.now
    assert (await queue.store.get(other)).state is State.QUEUED
    with pytest.raises(JobStateConflict):
        await queue.store.finish_campaign(begun.campaign_id, CampaignState.DONE)
    with pytest.raises(JobStateConflict):
        await queue.store.submit(submission(campaign_id=begun.campaign_id))


async def test_what_is_not_there_is_said_to_be_so(queue: Queue) -> None:
    with pytest.raises(UnknownJob):
        await queue.store.get(1_000_000)
    with pytest.raises(UnknownJob):
        await queue.store.history(1_000_000)
    with pytest.raises(UnknownCampaign):
        await queue.store.campaign(1_000_000)


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("point", {"point": {"steps": float("nan")}}),
        ("point", {"point": {"steps": {1, 2}}}),
        ("gpu", {"gpu": ""}),
        ("gpu", {"gpu": "H100\x00"}),
        ("gpu", {"gpu": "\ud800"}),
        ("gpu", {"gpu": "x" * 201}),
        ("min_total_bytes", {"min_total_bytes": -1}),
        ("min_total_bytes", {"min_total_bytes": 2**63}),
        ("priority", {"priority": 1001}),
        ("max_attempts", {"max_attempts": 0}),
        ("expires_in", {"expires_in": timedelta(0)}),
        ("versions", {"versions": {f"p{i}": "1" for i in range(65)}}),
        ("versions.torch", {"versions": {"torch": "2\n"}}),
    ],
)
def test_a_job_that_cannot_be_stored_is_refused_by_its_key(key: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidSubmission) as refused:
        JobRequest(**{"point": {"steps": 3}, **changes})
    assert refused.value.key == key


@pytest.mark.parametrize(
    ("key", "changes"),
    [
        ("submitter", {"submitter": ""}),
        ("jobs", {"jobs": ()}),
        ("jobs", {"jobs": (job(),) * 10_001}),
        ("idempotency_key", {"idempotency_key": "a\tb"}),
        ("campaign_model", {"campaign_model": ""}),
        ("campaign_id", {"campaign_model": "a/model", "campaign_id": 1}),
    ],
)
def test_a_submission_that_cannot_be_taken_is_refused_by_its_key(key: str, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidSubmission) as refused:
        Submission(**{"submitter": "me", "jobs": (job(),), **changes})
    assert refused.value.key == key
