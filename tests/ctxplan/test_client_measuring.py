"""What is measured, asked by both clients of a real service on loopback."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from ctxplan import AsyncClient, Client
from ctxplan.client import Conflict, NotFound, RefusedInput
from ctxplan.client.queue_answers import CampaignAnswer
from tests.app.jobs import MODEL
from tests.app.measuring import POINT, WORKER, lease, point, result_of, send
from tests.ctxplan.serving import serving

ROOT = Path(__file__).resolve().parents[2]
MANUAL = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
NOBODY = {"gpu": "RTX-4090-24GB"}
"""What no worker of these tests has: such jobs stay queued."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("service")) as address:
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, retries=0) as client:
        yield client


@pytest.fixture
def worker(address: str) -> Iterator[httpx.Client]:
    """Speaks what workers speak, which the client does not."""
    with httpx.Client(base_url=address) as worker:
        yield worker


def test_points_are_queued_shown_cancelled_and_queued_again(client: Client) -> None:
    one = client.submit_point(POINT, requires=NOBODY, priority=7, max_attempts=2)
    assert one["campaign"] is None
    (job,) = one["items"]
    assert (job["state"], job["priority"], job["max_attempts"]) == ("queued", 7, 2)
    assert job["requires"]["gpu"] == NOBODY["gpu"]
    assert [event["kind"] for event in client.probe_job(job["id"])["events"]] == ["submitted"]
    assert client.cancel_probe_job(job["id"])["state"] == "cancelled"
    assert client.retry_probe_job(job["id"])["state"] == "queued"
    with pytest.raises(Conflict):
        client.retry_probe_job(job["id"])
    with pytest.raises(NotFound):
        client.probe_job(10**9)
    with pytest.raises(RefusedInput) as refused:
        client.submit_points([POINT, {"job": {"model": MODEL, "r": -1}}])
    assert refused.value.key == "points[1].job.r"


def test_a_submission_that_is_made_again_with_its_own_key_is_the_same_jobs(client: Client) -> None:
    first = client.submit_points([point(1024), point(4096)], requires=NOBODY, idempotency_key="a-night")
    again = client.submit_points([point(1024), point(4096)], requires=NOBODY, idempotency_key="a-night")
    other = client.submit_points([point(1024), point(4096)], requires=NOBODY)
    assert first == again
    assert {one["id"] for one in first["items"]}.isdisjoint(one["id"] for one in other["items"])
    with pytest.raises(Conflict, match="idempotency-conflict"):
        client.submit_points([point(1024)], requires=NOBODY, idempotency_key="a-night")


def test_every_job_is_gone_through_page_after_page_as_far_as_it_is_asked_for(address: str) -> None:
    asked: list[str] = []

    class Noted(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            asked.append(request.method)
            return super().handle_request(request)

    with Client(address, transport=Noted()) as client:
        before = sum(1 for _ in client.each_probe_job(state="queued"))
        submitted = client.submit_points([point(1024 + n) for n in range(130)], requires=NOBODY)
        ids = [job["id"] for job in submitted["items"]]
        asked.clear()
        jobs = client.each_probe_job(state="queued")
        assert asked == []
        assert next(jobs)["id"] == ids[-1]
        assert asked == ["GET"]
        rest = [job["id"] for job in jobs]
        assert rest[: len(ids) - 1] == ids[-2::-1]
        assert len(rest) == len(ids) - 1 + before
        assert len(asked) > 1
        page = client.probe_jobs(state="queued", limit=3)
        assert [one["id"] for one in page["items"]] == ids[:-4:-1]
        assert client.probe_jobs(state="queued", limit=1, cursor=page["next"])["items"][0]["id"] == ids[-4]


def test_a_job_that_was_measured_has_its_measurement(client: Client, worker: httpx.Client) -> None:
    (job,) = client.submit_point(point(3072), priority=900)["items"]
    held = lease(worker)
    assert held["job"] == job["id"]
    assert send(worker, held, "result", result_of(held)).status_code == 201
    (kept,) = client.measurements(job=job["id"])["items"]
    assert client.measurement(kept["id"]) == kept
    assert (kept["state"], kept["point"]) == ("accepted", job["digest"])
    assert list(client.each_measurement(point=job["digest"], state="accepted")) == [kept]
    assert [one["id"] for one in client.workers()] == [WORKER["id"]]
    assert client.drain_worker(WORKER["id"])["draining"]
    assert not client.drain_worker(WORKER["id"], draining=False)["draining"]


def test_one_that_is_not_to_be_believed_is_released(client: Client, worker: httpx.Client) -> None:
    (job,) = client.submit_point(point(3080), priority=900)["items"]
    held = lease(worker)
    send(worker, held, "result", result_of(held, off=2.0))
    (kept,) = client.measurements(job=job["id"], state="quarantined")["items"]
    assert kept["quarantined"]
    assert client.release_measurement(kept["id"], why="looked at it")["state"] == "accepted"


def test_what_was_measured_elsewhere_is_taken_in_once(client: Client) -> None:
    file = sorted((ROOT / "evidence" / "measurements").glob("*.jsonl"))[0]
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:2]]
    assert [one["new"] for one in client.add_measurements(rows)["items"]] == [True, True]
    assert [one["new"] for one in client.add_measurements(rows)["items"]] == [False, False]


def test_a_campaign_is_watched_until_it_has_ended(client: Client) -> None:
    begun = client.start_campaign(MODEL, requires=NOBODY, activate="never")
    campaign = begun["campaign"]
    assert campaign is not None
    told: list[CampaignAnswer] = []
    for one in client.watch_campaign(campaign):
        told.append(one)
        if len(told) == 1:
            client.cancel_probe_job(begun["items"][0]["id"])
        if one["jobs"].get("cancelled") == 1:
            client.cancel_campaign(campaign)
    assert (told[0]["state"], told[0]["jobs"]) == ("measuring", {"queued": len(begun["items"])})
    assert told[-1] == client.campaign(campaign)
    assert told[-1]["state"] == "cancelled"
    assert all(one != before for before, one in pairwise(told))
    assert client.campaigns(state="cancelled", limit=1)["items"][0]["id"] == campaign
    assert campaign in {one["id"] for one in client.each_campaign()}
    assert list(client.watch_campaign(campaign)) == told[-1:]
    with pytest.raises(Conflict):
        client.cancel_campaign(campaign)
    with pytest.raises(NotFound):
        list(client.watch_campaign(10**9))


def test_whoever_stops_watching_leaves_no_connection_behind(client: Client) -> None:
    begun = client.start_campaign(MODEL, requires=NOBODY)
    campaign = begun["campaign"]
    assert campaign is not None
    watched = client.watch_campaign(campaign)
    assert next(iter(watched))["state"] == "measuring"
    watched.close()
    assert client.cancel_campaign(campaign)["state"] == "cancelled"


async def test_the_async_client_measures_as_well(address: str) -> None:
    async with AsyncClient(address, retries=0) as client:
        begun = await client.start_campaign(MODEL, requires=NOBODY, priority=1)
        campaign = begun["campaign"]
        assert campaign is not None
        states = []
        async for one in client.watch_campaign(campaign):
            states.append(one["state"])
            if one["state"] == "measuring":
                await client.cancel_campaign(campaign)
        assert states[-1] == "cancelled"
        ids = {job["id"] async for job in client.each_probe_job(campaign=campaign)}
        assert ids == {job["id"] for job in begun["items"]}
        (job,) = (await client.submit_point(POINT, requires=NOBODY))["items"]
        assert (await client.cancel_probe_job(job["id"]))["state"] == "cancelled"
        assert (await client.probe_jobs(state="cancelled", limit=1))["items"][0]["id"] == job["id"]
        with pytest.raises(NotFound):
            async for _ in client.watch_campaign(10**9):
                pass


def test_the_campaign_of_the_manual_is_begun_and_followed(
    address: str, client: Client, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code = re.findall(r"```python\n(.*?)```", MANUAL, re.DOTALL)[1].replace("http://127.0.0.1:8000", address)
    begin = Client.start_campaign

    def and_end_it(self: Client, *arguments: Any, **options: Any) -> Any:
        begun = begin(self, *arguments, **options)
        client.cancel_campaign(begun["campaign"] or 0)
        return begun

    monkeypatch.setattr(Client, "start_campaign", and_end_it)
    exec(code, {})  # noqa: S102 - our own manual
    queued, *states = capsys.readouterr().out.splitlines()
    assert queued.endswith("points are queued")
    assert states[-1].startswith("cancelled {'cancelled': ")
