"""A quarantined measurement that an operator believes after all, and campaigns whose end was broken off."""

from __future__ import annotations

import json
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from anyio import to_thread
from starlette.testclient import TestClient
from typer.testing import CliRunner

from app.calibrations import Calibrations
from app.cli import application
from app.job_schemas import CampaignAnswer, JobWithHistory, MeasurementAnswer
from app.jobs import background
from app.jobs.background import Settling
from app.jobs.fitting import NOTHING, Fitted, fit_campaign
from app.jobs.fitting_process import FitBroken
from app.jobs.measurements import list_measurements
from app.jobs.release import release as release_it
from ctxplan.calibration_keeping import StoreUnavailable
from tests.app.measuring import CAMPAIGNS, JOBS, MEASUREMENTS, answers_with, lease, result_of, send, service, submit
from tests.app.test_campaigns import begin, ended, measure_all, patiently
from tests.app.test_problems import problem_of


@pytest.fixture(autouse=True)
def no_committed_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit of the campaign's rows alone takes no time, as in a wheel, which has no others; and here it has no process
    of its own to start."""
    monkeypatch.setattr("probes.fitting.rows.committed_rows", list)

    async def fit_here(*rows: Any, is_shipped: bool) -> Fitted:
        return await to_thread.run_sync(lambda: fit_campaign(*rows, is_shipped=is_shipped))

    monkeypatch.setattr("app.jobs.background.fit_apart", fit_here)


def quarantined(client: TestClient) -> int:
    """A measurement that nobody believes."""
    submit(client)
    held = lease(client)
    answer = send(client, held, "result", result_of(held, off=0.5)).json()
    assert answer["quarantined"]
    number: int = answer["measurement"]
    return number


def release(client: TestClient, number: int, **body: Any) -> MeasurementAnswer:
    response = client.post(f"{MEASUREMENTS}/{number}/release", json=body)
    assert response.status_code == 200, response.text
    return MeasurementAnswer.model_validate_json(response.content)


def history_of(client: TestClient, job: int) -> list[Any]:
    return JobWithHistory.model_validate(client.get(f"{JOBS}/{job}").json()).events


def test_a_released_measurement_is_accepted_and_the_history_says_by_whom_and_why(queue_client: TestClient) -> None:
    number = quarantined(queue_client)
    found = release(queue_client, number, why="the new driver needs that much")
    assert (found.state, found.quarantined) == ("accepted", None)
    *_, last = history_of(queue_client, found.job)
    assert last.kind == "released"
    assert (last.detail["by"], last.detail["why"]) == ("local", "the new driver needs that much")
    assert "off what" in last.detail["quarantined"]
    assert queue_client.get(f"{JOBS}/{found.job}").json()["state"] == "succeeded"


def test_a_measurement_is_released_once(queue_client: TestClient) -> None:
    number = quarantined(queue_client)
    first, again = release(queue_client, number), release(queue_client, number)
    assert first == again
    assert [event.kind.value for event in history_of(queue_client, first.job)].count("released") == 1


def test_what_was_accepted_stays_as_it_is(queue_client: TestClient) -> None:
    submit(queue_client)
    held = lease(queue_client)
    number = send(queue_client, held, "result", result_of(held)).json()["measurement"]
    assert release(queue_client, number).state == "accepted"
    assert history_of(queue_client, held["job"])[-1].kind == "succeeded"


def test_the_result_that_is_sent_again_after_its_release_is_answered_as_the_first_time(
    queue_client: TestClient,
) -> None:
    submit(queue_client)
    held = lease(queue_client)
    document = result_of(held, off=0.5)
    first = send(queue_client, held, "result", document).json()
    release(queue_client, first["measurement"])
    again = send(queue_client, held, "result", document)
    assert again.status_code == 200
    assert again.json()["measurement"] == first["measurement"]


@pytest.mark.parametrize(
    ("number", "body", "status", "code"),
    [(99_999, {}, 404, "unknown-measurement"), (1, {"because": "x"}, 422, "invalid-submission")],
)
def test_what_cannot_be_released_is_refused(
    queue_client: TestClient, number: int, body: dict[str, str], status: int, code: str
) -> None:
    problem_of(queue_client.post(f"{MEASUREMENTS}/{number}/release", json=body), status, code)


def test_a_campaign_that_failed_for_want_of_it_is_fitted_again(queue_client: TestClient) -> None:
    begun = begin(queue_client, activate="always")
    measure_all(queue_client, off=0.4)
    assert ended(queue_client, begun.campaign).state == "failed"
    items = queue_client.get(MEASUREMENTS, params={"campaign": begun.campaign}).json()["items"]
    for one in items:
        release(queue_client, one["id"], why="believed")
    found = ended(queue_client, begun.campaign)
    assert found.state == "done"
    assert found.outcome is not None
    assert found.calibration == found.outcome.calibration
    patiently(lambda: answers_with(queue_client) == found.calibration, "the calibration answers")


def test_a_campaign_that_was_cancelled_stays_so(queue_client: TestClient) -> None:
    begun = begin(queue_client)
    held = lease(queue_client)
    number = send(queue_client, held, "result", result_of(held, off=0.4)).json()["measurement"]
    queue_client.post(f"{CAMPAIGNS}/{begun.campaign}/cancellation")
    release(queue_client, number)
    found = CampaignAnswer.model_validate(queue_client.get(f"{CAMPAIGNS}/{begun.campaign}").json())
    assert found.state == "cancelled"


def test_a_calibration_that_cannot_be_kept_now_is_fitted_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, tried = Calibrations.keep, []

    def full_at_first(self: Calibrations, *what: Any) -> bool:
        tried.append(what)
        if len(tried) == 1:
            raise StoreUnavailable("the disk is full")
        return keep(self, *what)

    monkeypatch.setattr(Calibrations, "keep", full_at_first)
    with service(f"sqlite:///{tmp_path}/x.db", tmp_path, sweep_seconds=0.05) as client:
        begun = begin(client, activate="never")
        measure_all(client)
        assert ended(client, begun.campaign).state == "done"
    assert len(tried) == 2


def test_a_fit_that_was_killed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit, tried = vars(background)["fit_apart"], []

    async def killed_at_first(*rows: Any, is_shipped: bool) -> Fitted:
        tried.append(rows)
        if len(tried) == 1:
            raise FitBroken("the fit ended with exit code -9")
        made: Fitted = await fit(*rows, is_shipped=is_shipped)
        return made

    monkeypatch.setattr(background, "fit_apart", killed_at_first)
    with service(f"sqlite:///{tmp_path}/x.db", tmp_path, sweep_seconds=0.05) as client:
        begun = begin(client, activate="never")
        measure_all(client)
        assert ended(client, begun.campaign).state == "done"
    assert len(tried) == 2


def test_an_activation_that_was_broken_off_is_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The service ends between the campaign's end and the activation; the next one finds it."""
    monkeypatch.setattr("app.jobs.campaigns.ON_ITS_WAY", timedelta(0))
    url = f"sqlite:///{tmp_path}/x.db"
    activate = Calibrations.make_active

    def killed(self: Calibrations, id: str, *, why: str) -> None:
        raise StoreUnavailable("the process ends here")

    monkeypatch.setattr(Calibrations, "make_active", killed)
    with service(url, tmp_path, sweep_seconds=0.05) as client:
        begun = begin(client, activate="always")
        measure_all(client)
        calibration = ended(client, begun.campaign).calibration
        assert calibration
        assert answers_with(client) != calibration
        monkeypatch.setattr(Calibrations, "make_active", activate)
        patiently(lambda: answers_with(client) == calibration, "the calibration answers")


def test_a_release_while_the_campaign_ends_is_not_missed(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would have been fitted is released after nothing was found to be fitted, and before that is said."""
    fail, said = Settling._fail, []

    async def fail_too_late(self: Settling, campaign_id: int, why: str, *, seen: int) -> None:
        said.append(why)
        async with self._database.write() as connection:
            page = await list_measurements(connection, state="quarantined", campaign=campaign_id, limit=1, cursor=None)
            for row in page.items:
                await release_it(connection, row.id, self._backend.clock(), by="somebody", why=None)
        await fail(self, campaign_id, why, seen=seen)

    monkeypatch.setattr(Settling, "_fail", fail_too_late)
    with service(database_url, tmp_path, sweep_seconds=0.05) as client:
        begun = begin(client, activate="never", max_attempts=1)
        for _ in begun.items[1:]:
            send(client, lease(client), "failure", {"why": "broken"})
        held = lease(client)
        send(client, held, "result", result_of(held, off=0.4))
        assert ended(client, begun.campaign).state == "done"
    assert said == [NOTHING]


def test_the_command_line_releases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with service(f"sqlite:///{tmp_path}/x.db", tmp_path) as client:
        number = quarantined(client)
        monkeypatch.setattr("app.cli.service.client_of", lambda server: nullcontext(client))
        run = CliRunner().invoke(application, ["calibrate", "release", str(number), "--why", "seen before", "--json"])
        assert run.exit_code == 0, run.stderr
        assert json.loads(run.stdout)["state"] == "accepted"
        assert "is accepted" in run.stderr
        refused = CliRunner().invoke(application, ["calibrate", "release", "99999"])
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert "404" in refused.stderr
