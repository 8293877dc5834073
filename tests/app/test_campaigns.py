"""Campaigns from the request to the calibration that answers, with a worker in this process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient
from typer.testing import CliRunner

from app.backend import QueueUnavailable
from app.cli import application
from app.job_schemas import CampaignAnswer, CampaignListing, SubmittedAnswer
from app.jobs.fitting import verdict
from app.routers.campaigns import follow
from app.settings import Settings
from ctxplan.calibrations import shipped
from probes.fitting.compare import Errors, Group
from probes.points import parse_point
from tests.app.jobs import MODEL
from tests.app.launched import served
from tests.app.measuring import CAMPAIGNS, JOBS, LEASES, WORKER, answers_with, lease, result_of, send, service
from tests.app.test_keys_over_http import SECRET, bearer, key, revoke
from tests.app.test_problems import problem_of
from tests.probes.common import said_address, wait_for
from tests.probes.documents import measured_on_the_cpu, out_of_memory

PATIENCE_SECONDS = 120


def begin(client: TestClient, **body: Any) -> SubmittedAnswer:
    response = client.post(JOBS, json={"calibrate": MODEL, **body})
    assert response.status_code == 201, response.text
    return SubmittedAnswer.model_validate_json(response.content)


def measure_all(client: Any, **how: Any) -> int:
    """Be the worker until there is nothing left to do."""
    done = 0
    while True:
        response = client.post(LEASES, json={"worker": WORKER})
        if response.status_code == 204:
            return done
        held = response.json()
        sent = send(client, held, "result", result_of(held, **how))
        assert sent.status_code == 201, sent.text
        done += 1


def ended(client: Any, campaign: int | None) -> CampaignAnswer:
    """The campaign once it has ended."""
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        found = CampaignAnswer.model_validate(client.get(f"{CAMPAIGNS}/{campaign}").json())
        if found.state != "measuring":
            return found
        time.sleep(0.02)
    raise AssertionError("the campaign did not end")


def test_a_model_becomes_the_few_points_that_pin_it(queue_client: TestClient) -> None:
    begun = begin(queue_client, priority=2)
    assert 2 <= len(begun.items) <= 8
    points = [parse_point(one.point) for one in begun.items]
    assert {point.job.model for point in points} == {MODEL}
    assert all((point.job.num_hidden_layers or 99) <= 5 for point in points)
    assert {one.priority for one in begun.items} == {2}
    assert {one.campaign for one in begun.items} == {begun.campaign}
    found = CampaignAnswer.model_validate(queue_client.get(f"{CAMPAIGNS}/{begun.campaign}").json())
    assert found.model == MODEL
    assert (found.state, found.points, found.jobs) == ("measuring", len(points), {"queued": len(points)})
    assert found.activate == "if_better"


def test_the_same_request_begins_one_campaign_whatever_calibration_answers_meanwhile(queue_client: TestClient) -> None:
    body, headers = {"calibrate": MODEL}, {"idempotency-key": "one"}
    first = queue_client.post(JOBS, json=body, headers=headers)
    again = queue_client.post(JOBS, json=body, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert len(queue_client.get(CAMPAIGNS).json()["items"]) == 1


def test_a_whole_campaign_ends_in_a_calibration_that_answers(queue_client: TestClient) -> None:
    """All committed rows are fitted with the campaign's: seconds, for it is what a user waits for."""
    begun = begin(queue_client)
    assert measure_all(queue_client, off=0.001) == len(begun.items)
    found = ended(queue_client, begun.campaign)
    outcome = found.outcome
    assert outcome is not None
    assert found.state == "done", outcome.why
    assert outcome.points > shipped().points
    assert set(outcome.errors) == {"campaign", "all"}
    assert outcome.better, outcome.why
    assert outcome.activated
    assert found.calibration == outcome.calibration
    wait_for(
        lambda: answers_with(queue_client) == outcome.calibration, "it answers", seconds=PATIENCE_SECONDS, every=0.02
    )
    active = queue_client.get("/v1/calibrations/active").json()
    assert active["id"] == outcome.calibration
    assert f"campaign {begun.campaign}" in active["activation"]["why"]
    problem_of(queue_client.post(f"{CAMPAIGNS}/{begun.campaign}/cancellation"), 409, "state-conflict")


def test_a_calibration_that_is_not_to_answer_is_kept_all_the_same(tmp_path: Path) -> None:
    with service(f"sqlite:///{tmp_path}/x.db", tmp_path) as client:
        begun = begin(client, activate="never")
        measure_all(client)
        found = ended(client, begun.campaign)
        assert found.state == "done"
        assert found.outcome is not None
        assert not found.outcome.activated
        assert answers_with(client) == shipped().id
        assert client.get(f"/v1/calibrations/{found.calibration}").status_code == 200


@pytest.mark.parametrize("kind", ["cpu", "out_of_memory", "quarantined"])
def test_what_no_fit_reads_makes_no_calibration(queue_client: TestClient, kind: str) -> None:
    begun = begin(queue_client, requires={"gpu": None})
    for _ in begun.items:
        held = lease(queue_client)
        point = parse_point(held["point"])
        document = {
            "cpu": lambda: measured_on_the_cpu(point, steps_asked=point.steps).model_dump(mode="json"),  # noqa: B023
            "out_of_memory": lambda: out_of_memory(point, steps_asked=point.steps).model_dump(mode="json"),  # noqa: B023
            "quarantined": lambda: result_of(held, off=2.0),  # noqa: B023
        }[kind]()
        assert send(queue_client, held, "result", document).status_code == 201
    found = ended(queue_client, begun.campaign)
    assert found.state == "failed"
    assert found.calibration is None
    assert found.outcome is not None
    assert "no measurement of the campaign" in found.outcome.why
    assert answers_with(queue_client) == shipped().id


def test_a_campaign_whose_jobs_all_failed_fails(queue_client: TestClient) -> None:
    begun = begin(queue_client, max_attempts=1)
    for _ in begun.items:
        send(queue_client, lease(queue_client), "failure", {"why": "broken"})
    assert ended(queue_client, begun.campaign).state == "failed"


def test_a_cancelled_campaign_cancels_what_has_not_ended(queue_client: TestClient) -> None:
    begun = begin(queue_client)
    held = lease(queue_client)
    found = CampaignAnswer.model_validate(queue_client.post(f"{CAMPAIGNS}/{begun.campaign}/cancellation").json())
    assert (found.state, found.jobs) == ("cancelled", {"cancelled": len(begun.items)})
    assert send(queue_client, held, "renewal").json()["cancelled"]


def test_campaigns_are_listed_newest_first(queue_client: TestClient) -> None:
    ids = [begin(queue_client).campaign for _ in range(3)]
    queue_client.post(f"{CAMPAIGNS}/{ids[0]}/cancellation")
    page = CampaignListing.model_validate(queue_client.get(CAMPAIGNS, params={"limit": 2}).json())
    assert [one.id for one in page.items] == ids[:0:-1]
    rest = CampaignListing.model_validate(queue_client.get(CAMPAIGNS, params={"cursor": page.next}).json())
    assert [one.id for one in rest.items] == ids[:1]
    assert rest.next is None
    cancelled = queue_client.get(CAMPAIGNS, params={"state": "cancelled"}).json()["items"]
    assert [one["id"] for one in cancelled] == ids[:1]
    problem_of(queue_client.get(f"{CAMPAIGNS}/99999"), 404, "unknown-campaign")
    problem_of(queue_client.get(f"{CAMPAIGNS}/99999/events"), 404, "unknown-campaign")


def errors(middle: float, covered: float) -> Errors:
    return Errors(middle=middle, worst=middle, covered=covered, margin=0.0)


@pytest.mark.parametrize(
    ("own", "every", "better", "why"),
    [
        ((0.01, 0.9, 0.02, 0.9), (0.01, 0.9, 0.01, 0.9), False, "farther off"),
        ((0.01, 0.9, 0.01, 0.8), (0.01, 0.9, 0.01, 0.9), False, "bound holds on fewer"),
        ((0.01, 0.9, 0.00, 0.9), (0.01, 0.9, 0.02, 0.9), False, "worse on the points"),
        ((0.01, 0.9, 0.00, 0.9), (0.01, 0.9, 0.01, 0.8), False, "worse on the points"),
        ((0.01, 0.9, 0.00, 0.9), (0.01, 0.9, 0.01, 0.9), True, "fitted to all"),
    ],
)
def test_a_calibration_is_better_only_where_nothing_gets_worse(
    own: tuple[float, ...], every: tuple[float, ...], better: bool, why: str
) -> None:
    groups = [
        Group(name="x", points=3, before=errors(*numbers[:2]), after=errors(*numbers[2:])) for numbers in (own, every)
    ]
    found, text = verdict(shipped(), shipped(), *groups)
    assert (found, why in text) == (better, True), text


def test_a_calibration_that_lacks_the_active_ones_points_is_not_better() -> None:
    import dataclasses

    same = Group(name="x", points=3, before=errors(0.1, 0.9), after=errors(0.0, 1.0))
    fewer = dataclasses.replace(shipped(), digests=shipped().digests[1:])
    assert verdict(shipped(), fewer, same, same) == (
        False,
        "1 points of the active calibration are not here to be fitted again",
    )


def settings_of(url: str, folder: Path, **more: Any) -> Settings:
    quiet: dict[str, Any] = {"allow_hub": False, "log_level": "error", "max_lag_ms": 10_000}
    return Settings(**quiet, database_url=url, calibrations=folder / "calibrations", **more)


@pytest.fixture
def live(tmp_path: Path) -> Iterator[str]:
    """A real server with a queue, of which events can be read while it works."""
    with served(settings_of(f"sqlite:///{tmp_path}/x.db", tmp_path, event_seconds=0.02)) as url:
        yield url


def test_events_tell_every_state_until_the_campaign_has_ended(live: str) -> None:
    with httpx.Client(base_url=live, timeout=PATIENCE_SECONDS) as client:
        begun = client.post(JOBS, json={"calibrate": MODEL, "max_attempts": 1}).json()
        states = []
        with client.stream("GET", f"{CAMPAIGNS}/{begun['campaign']}/events") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            lines = response.iter_lines()
            for line in lines:
                if not line.startswith("data: "):
                    continue
                found = CampaignAnswer.model_validate(json.loads(line.removeprefix("data: ")))
                states.append((found.state, found.jobs))
                # What is told may be of before the failure that was sent last.
                if found.jobs.get("queued") and "leased" not in found.jobs:
                    with httpx.Client(base_url=live) as worker:
                        send(worker, lease(worker), "failure", {"why": "broken"})
        count = len(begun["items"])
        assert states[0] == ("measuring", {"queued": count})
        assert states[-1] == ("failed", {"failed": count})
        assert len(states) > count


@pytest.mark.parametrize("how", ["its key is revoked", "its session's key is revoked", "it signs out"])
def test_a_stream_of_events_ends_when_its_reader_would_be_let_in_no_longer(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Within the five seconds of any other request; here they are none. A reader waits ten before it gives up."""
    monkeypatch.setattr("app.security.REMEMBERED_SECONDS", 0.0)
    keys: dict[str, Any] = {"require_keys": True, "keys_secret": SECRET, "event_seconds": 0.02}
    with service(database_url, tmp_path, **keys), served(settings_of(database_url, tmp_path, **keys)) as url:
        made = key(database_url, "measure")
        with httpx.Client(base_url=url, timeout=10) as client:
            wait_for(lambda: client.get(JOBS, headers=bearer(made.key)).status_code == 200, "the key is known")
            begun = client.post(JOBS, json={"calibrate": MODEL}, headers=bearer(made.key)).json()
            headers = bearer(made.key) if how == "its key is revoked" else {}
            if not headers:
                assert client.post("/sign-in", data={"key": made.key}).status_code == 303
            events = f"{CAMPAIGNS}/{begun['campaign']}/events"
            with client.stream("GET", events, headers=headers) as response:
                lines = response.iter_lines()
                assert next(lines) == "id: 1"
                if how == "it signs out":
                    copy = httpx.Client(base_url=url, cookies=client.cookies)
                    assert copy.post("/sign-out").status_code == 200
                    copy.close()
                else:
                    revoke(database_url, made)
                assert [one for one in lines if one.startswith("id: ")] == []
            problem_of(client.get(events, headers=headers), 401, "unauthenticated")


async def test_what_cannot_be_checked_now_is_told_nothing_new_and_goes_on() -> None:
    """The database is away for a while: neither is a change told unchecked, nor are all readers sent away."""
    states = iter([{"state": "measuring", "jobs": 2}, {"state": "done", "jobs": 0}])
    checks: list[Any] = [QueueUnavailable(), True, OperationalError("", {}, Exception()), True]

    class Campaigns:
        async def campaign(self, _: int) -> dict[str, Any]:
            return next(states)

    async def may_see() -> bool:
        found = checks.pop(0)
        if isinstance(found, Exception):
            raise found
        return bool(found)

    first = {"state": "measuring", "jobs": 3}
    told = follow(Campaigns(), 1, first, 0.0, Event(), may_see=may_see)  # type: ignore[arg-type]
    assert [json.loads(one.partition("data: ")[2])["jobs"] async for one in told] == [3, 2, 0]
    assert checks == []


def test_the_command_line_starts_a_campaign_and_follows_it(live: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTXPLAN_SERVER", live)
    worker = Thread(target=_break_every_job, args=(live,))
    worker.start()
    run = CliRunner().invoke(application, ["calibrate", "start", MODEL, "--watch", "--json"])
    worker.join()
    assert run.exit_code == 3, run.stderr
    assert json.loads(run.stdout)["state"] == "failed"
    assert "points are queued" in run.stderr
    assert "failed: no measurement" in run.stderr


def test_the_command_line_says_where_no_service_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTXPLAN_API_KEY", "ctxp_secret")
    run = CliRunner().invoke(application, ["calibrate", "start", MODEL, "--server", "http://127.0.0.1:1"])
    assert run.exit_code == 4
    assert "cannot be reached" in run.stderr
    assert "ctxp_secret" not in run.output


def test_the_command_line_repeats_what_the_service_refuses(live: str) -> None:
    run = CliRunner().invoke(application, ["calibrate", "start", "nobody/nothing", "--server", live])
    assert run.exit_code == 2
    assert "422" in run.stderr


def _break_every_job(url: str) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    broken = 0
    with httpx.Client(base_url=url) as client:
        while time.monotonic() < until:
            response = client.post(LEASES, json={"worker": WORKER})
            if response.status_code == 200:
                send(client, response.json(), "failure", {"why": "broken", "retriable": False})
                broken += 1
            elif broken:
                return
            else:
                time.sleep(0.02)


def patiently(look: Callable[[], object], what: str) -> None:
    wait_for(look, what, seconds=PATIENCE_SECONDS, every=0.02)


def test_a_server_that_stops_ends_its_streams_of_events_and_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A real process: who follows a campaign that measures for hours does not keep it from stopping."""
    monkeypatch.setenv("CTXPLAN_DATABASE_URL", f"sqlite:///{tmp_path}/x.db")
    monkeypatch.setenv("CTXPLAN_EVENT_SECONDS", "0.02")
    command = [sys.executable, "-m", "app", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        url = said_address(server.stderr)
        with httpx.Client(base_url=url, timeout=PATIENCE_SECONDS) as client:
            begun = client.post(JOBS, json={"calibrate": MODEL}).json()
            with client.stream("GET", f"{CAMPAIGNS}/{begun['campaign']}/events") as response:
                lines = response.iter_lines()
                assert next(lines) == "id: 1"
                server.terminate()
                list(lines)
        assert server.wait(timeout=PATIENCE_SECONDS) in (0, -15)
        assert "Traceback" not in server.stderr.read()
