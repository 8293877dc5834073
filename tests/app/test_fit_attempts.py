"""A fit that never gives an answer ends its campaign, however many processes and restarts it has had."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from starlette.testclient import TestClient

from app.database import Database
from app.jobs import campaigns, fitting_process
from app.jobs.background import MOST_FITS, Settling
from app.jobs.fitting_process import FitBroken, fit_apart
from app.main import create_app
from app.queue import CampaignState, Submission
from app.queue.campaigns import finish_campaign
from app.settings import Settings
from ctxplan.calibration_keeping import StoreUnavailable
from ctxplan.calibrations import shipped
from tests.app.launched import served
from tests.app.measuring import CAMPAIGNS, JOBS, service
from tests.app.queue.helpers import Queue, job
from tests.app.test_campaigns import begin, ended, measure_all
from tests.app.test_fitting_process import python, rows
from tests.app.test_problems import problem_of
from tests.probes.common import alive, read_number, wait_for

URL = "/v1/calibrations"


async def attempts_of(url: str, campaign: int | None) -> int:
    database = Database(url)
    try:
        async with database.read() as connection:
            query = select(campaigns.FITS.c.attempts).where(campaigns.FITS.c.campaign_id == campaign)
            return int((await connection.execute(query)).scalar_one())
    finally:
        await database.dispose()


def test_a_fit_that_always_crashes_fails_its_campaign_after_some_attempts_of_all_processes(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first service tries once and then waits for an hour; what it has counted, the second one goes on from."""
    with service(database_url, tmp_path, planning_processes=0) as first:
        begun = begin(first)
        python(tmp_path, monkeypatch, f"echo tried >>{tmp_path}/tries; echo out of memory >&2; exit 9")
        measure_all(first)
        wait_for(lambda: asyncio.run(attempts_of(database_url, begun.campaign)) == 1, "an attempt is counted")
        with service(database_url, tmp_path, sweep_seconds=0.02, planning_processes=0) as second:
            found = ended(second, begun.campaign)
            shown = second.get(f"{CAMPAIGNS}/{begun.campaign}", headers={"accept": "text/html"}).text
    assert found.state == "failed"
    assert found.outcome is not None
    assert found.outcome.why == (
        f"its fit failed {MOST_FITS} times, the last time so: the fit ended with exit code 9: out of memory"
    )
    assert (tmp_path / "tries").read_text().count("tried") == MOST_FITS
    assert json.dumps(found.outcome.why)[1:-1] in shown


def test_each_campaign_that_cannot_be_settled_is_told_of_and_so_is_what_failed_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each once, for it is tried again and again; a fault of the service's own with its traceback."""
    faults: list[Exception] = [StoreUnavailable("a full disk"), ValueError("a fault of ours")]

    async def settle(_: Settling, campaign: int) -> None:
        raise faults[campaign % 2]

    async def make_up_for(_: Settling, __: object) -> None:
        raise OSError("nothing is made up for")

    monkeypatch.setattr(Settling, "settle", settle)
    monkeypatch.setattr(Settling, "make_up_for", make_up_for)
    monkeypatch.setattr("app.jobs.background.LONGEST_SECONDS", 0.02)
    url = f"sqlite:///{tmp_path}/x.db"
    with service(url, tmp_path, sweep_seconds=0.02, log_level="warning", planning_processes=0) as client:
        begun = [begin(client) for _ in range(2)]
        for one in (job for each in begun for job in each.items):
            assert client.post(f"{JOBS}/{one.id}/cancellation").status_code == 200
        said: list[dict[str, Any]] = []

        def told(name: str) -> list[dict[str, Any]]:
            said.extend(json.loads(line) for line in capsys.readouterr().err.splitlines())
            return [one for one in said if one.get("task") == name]

        named = {(each.campaign or 0) % 2: f"campaign {each.campaign}" for each in begun}
        wait_for(lambda: len(told(named[1])) > 2, "it was tried again")
        assert "a fault of ours" in told(named[1])[0]["exception"]
        assert [one["detail"] for one in told(named[0])] == ["a full disk"]
        assert [one["detail"] for one in told("campaigns")] == ["nothing is made up for"]


async def test_fits_that_fail_at_the_same_time_are_one_attempt_and_a_release_forgets_them(database: Database) -> None:
    queue = Queue(database)
    submitted = await queue.store.submit(Submission(submitter="me", jobs=(job(),), campaign_model="a/model"))
    number = submitted.campaign_id
    assert number is not None
    for seen, counted in ((0, True), (0, False), (1, True), (1, False)):
        async with database.write() as connection:
            assert await campaigns.count_attempt(connection, number, seen=seen) == counted
    async with database.write() as connection:
        assert (await campaigns.get(connection, number)).attempts == 2
        await finish_campaign(connection, number, CampaignState.FAILED, queue.clock(), calibration_id=None)
        await campaigns.begin_again(connection, number)
        assert (await campaigns.get(connection, number)).attempts == 0


async def test_a_fit_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python(tmp_path, monkeypatch, f"echo $$ >{tmp_path}/part; mv {tmp_path}/part {tmp_path}/pid; exec sleep 100")
    monkeypatch.setattr(fitting_process, "LONGEST_SECONDS", 1.0)
    with pytest.raises(FitBroken, match="longer than 1 s"):
        await fit_apart(rows(0, 1), [], shipped(), is_shipped=False)
    assert not alive(read_number(tmp_path / "pid"))


async def test_a_process_that_cannot_be_started_and_an_answer_that_is_none_are_fits_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python(tmp_path, monkeypatch, "echo nothing")
    with pytest.raises(FitBroken, match="answer that is none"):
        await fit_apart(rows(0, 1), [], shipped(), is_shipped=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    with pytest.raises(FitBroken, match="cannot be started"):
        await fit_apart(rows(0, 1), [], shipped(), is_shipped=False)


def settings(tmp_path: Path) -> Settings:
    chosen: dict[str, Any] = {"database_url": f"sqlite:///{tmp_path}/x.db", "calibrations": tmp_path / "calibrations"}
    return Settings(
        allow_hub=False,
        log_level="error",
        allow_calibration=True,
        planning_processes=0,
        max_lag_ms=10_000,
        **chosen,
    )


def test_a_requests_fit_that_crashes_is_a_fault_that_is_answered_and_the_next_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = {"measurements": rows(0, 3)}
    with TestClient(create_app(settings(tmp_path))) as client:
        with monkeypatch.context() as patch:
            python(tmp_path, patch, "echo no memory >&2; kill -9 $$")
            found = problem_of(client.post(URL, json=body), 500, "internal-error")
            assert "memory" not in str(found)
        assert client.post(URL, json=body).status_code == 201


def test_a_requests_fit_ends_when_its_client_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(settings(tmp_path)) as url, httpx.Client(base_url=url, timeout=60) as client:
        python(tmp_path, monkeypatch, f"echo $$ >{tmp_path}/part; mv {tmp_path}/part {tmp_path}/pid; exec sleep 100")
        with pytest.raises(httpx.ReadTimeout):
            client.post(URL, json={"measurements": rows(0, 3)}, timeout=2)
        pid = read_number(tmp_path / "pid")
        wait_for(lambda: not alive(pid), "the fit has ended")
        monkeypatch.undo()
        assert client.get(f"{URL}/active").status_code == 200
