"""The pages of jobs, campaigns and workers: what they show is what the queue says, and what they do is asked first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from starlette.testclient import TestClient

from app.main import create_app
from app.page.queue import asked_of, progress_of, workers_of
from app.page.words import ago
from app.settings import Settings
from probes.points import parse_point
from tests.app.jobs import MODEL
from tests.app.measuring import (
    CAMPAIGNS,
    JOBS,
    MEASUREMENTS,
    WORKERS,
    lease,
    point,
    result_of,
    send,
    service,
    submit,
)
from tests.app.test_page import HTML, Reader
from tests.app.test_problems import problem_of
from tests.probes.documents import out_of_memory

PAGES = ("/jobs", "/jobs?state=leased", "/jobs?campaign=1", "/jobs/1", "/jobs/2", "/jobs/3", "/campaigns")
NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[TestClient]:
    with service(f"sqlite:///{tmp_path}/x.db", tmp_path) as client:
        yield client


@pytest.fixture(scope="module")
def busy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A campaign with a job that succeeded, one that was quarantined and one that is leased; two jobs without one, of
    which the first has failed; and a worker that drains. Only looked at."""
    folder = tmp_path_factory.mktemp("busy")
    with service(f"sqlite:///{folder}/x.db", folder) as client:
        campaign = client.post(JOBS, json={"calibrate": MODEL, "priority": 5}).json()
        assert (campaign["campaign"], len(campaign["items"])) == (1, 3)
        send(client, held := lease(client), "result", result_of(held, off=0.004))
        send(client, held := lease(client), "result", result_of(held, off=0.6))
        lease(client, id="w2", name="<b>second</b>")
        submit(client, point(4096))
        submit(client, point(8192))
        send(client, lease(client), "failure", {"why": "crashed", "detail": {"exit_code": -9}, "retriable": False})
        client.post(f"{WORKERS}/w2/draining", json={"draining": True})
        yield client


def page_of(client: TestClient, path: str) -> str:
    response = client.get(path, headers=HTML)
    assert response.status_code == 200, response.text
    return re.sub(r"\s+", " ", response.text)


def confirm(client: TestClient, path: str, action: str, **typed: str) -> Any:
    """Press the button of a question on a page: send its form as a browser does."""
    text = client.get(path, headers=HTML).text
    form = re.search(rf'<form action="{re.escape(action)}" method="post".*?</form>', text, re.DOTALL)
    assert form, f"{path} does not offer {action}"
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form[0]))
    origin = {"sec-fetch-site": "same-origin", "origin": "http://testserver"}
    return client.post(action, data={**fields, **typed}, headers={**HTML, **origin}, follow_redirects=False)


class TestWhatIsShown:
    @pytest.mark.parametrize("path", [*PAGES, "/jobs/4", "/campaigns/1", "/workers"])
    def test_is_well_formed_without_a_script_of_its_own_and_with_names_for_everything(
        self, busy: TestClient, path: str
    ) -> None:
        page = Reader(busy.get(path, headers=HTML).text)
        ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
        assert len(ids) == len(set(ids))
        for tag, attributes in page.elements:
            assert "style" not in attributes
            assert not [name for name in attributes if name.startswith("on")]
            assert tag != "script" or attributes.get("src")
        assert all(one.get("aria-label") or one.get("aria-labelledby") for one in page.all("nav", "form", "section"))
        pictures = page.all("svg")
        assert all(one.get("aria-hidden") or one.get("aria-label") for one in pictures)
        assert len(page.all("h1")) == 1

    @pytest.mark.parametrize(
        ("path", "document"),
        [
            ("/jobs", JOBS),
            ("/jobs?state=failed", f"{JOBS}?state=failed"),
            ("/jobs?campaign=1", f"{JOBS}?campaign=1"),
            ("/jobs/1", f"{JOBS}/1"),
            ("/campaigns", CAMPAIGNS),
            ("/campaigns/1", f"{CAMPAIGNS}/1"),
            ("/workers", WORKERS),
        ],
    )
    def test_has_its_json_at_its_own_address_and_where_its_foot_says(
        self, busy: TestClient, path: str, document: str
    ) -> None:
        found = busy.get(path, headers={"accept": "application/json"})
        assert found.headers["content-type"] == "application/json"
        link = next(str(one["href"]) for one in Reader(page_of(busy, path)).all("a") if "/v1/" in str(one["href"]))
        page = Reader(page_of(busy, path))
        alternate = next(one["href"] for one in page.all("link") if one["rel"] == "alternate")
        assert document == alternate
        assert document in [one["href"] for one in page.all("a")], link
        limit = "&limit=50" if "?" in document else "?limit=50"
        same = busy.get(document + (limit if path.startswith("/jobs?") or path == "/jobs" else ""))
        assert found.json() == same.json()

    def test_of_the_jobs_are_state_point_card_worker_and_campaign(self, busy: TestClient) -> None:
        text = page_of(busy, "/jobs")
        for one in busy.get(JOBS).json()["items"]:
            row = re.search(rf'id="job-{one["id"]}".*?</tr>', text)
            assert row, one["id"]
            asked = parse_point(one["point"])
            assert one["state"].capitalize() in row[0]
            assert f"{asked.sequence_length:,} tokens" in row[0]
            assert str(one["worker"] or "—") in row[0]
            assert ("campaign 1" in row[0]) == (one["campaign"] == 1)
        assert re.search(r"Waiting: .*<strong>1</strong> for H100-80GB", text)

    def test_is_narrowed_by_state_and_campaign(self, busy: TestClient) -> None:
        for query in ("?state=queued", "?state=failed", "?campaign=1", "?state=leased&campaign=1"):
            ids = [one["id"] for one in busy.get(JOBS + query).json()["items"]]
            assert [int(one) for one in re.findall(r'id="job-(\d+)"', page_of(busy, f"/jobs{query}"))] == ids
        assert "No job is expired" in page_of(busy, "/jobs?state=expired")

    def test_of_a_job_are_what_it_gave_and_all_that_happened(self, busy: TestClient) -> None:
        text = page_of(busy, "/jobs/1")
        job = busy.get(f"{JOBS}/1").json()
        assert re.search(r"GiB allocated at the peak, where .* GiB are expected: \+0\.40%", text)
        positions = [text.index(f'<li><span class="what">{one["kind"].capitalize()}') for one in job["events"]]
        assert positions == sorted(positions)
        assert job["digest"] in text
        assert "Plan this job" in text
        assert "hx-trigger" not in text, "what has ended is not asked for again"
        assert 'hx-trigger="every 2s"' in page_of(busy, "/jobs/3")

    def test_of_a_quarantined_result_is_why(self, busy: TestClient) -> None:
        assert re.search(r"No fit reads it: the peak is \+60\.0% off", page_of(busy, "/jobs/2"))

    def test_of_a_quarantined_result_is_a_badge_wherever_its_job_is_shown(self, busy: TestClient) -> None:
        for path in ("/jobs", "/jobs?state=succeeded", "/campaigns/1"):
            rows = re.findall(r'id="job-(\d+)".*?</tr>', page_of(busy, path))
            held = re.findall(r'id="job-(\d+)"(?:(?!</tr>).)*Quarantined', page_of(busy, path))
            assert "2" in rows
            assert held == ["2"]
        top = page_of(busy, "/jobs/2").partition('<dl class="figures">')[0]
        assert "Quarantined" in top
        assert "Quarantined" not in page_of(busy, "/jobs/1")
        assert 'action="/jobs/1/release"' not in page_of(busy, "/jobs/1")

    def test_of_a_failure_are_its_reason_and_evidence(self, busy: TestClient) -> None:
        text = page_of(busy, "/jobs/4")
        assert "crashed" in text
        assert "exit_code: -9" in text

    def test_of_a_campaign_are_how_far_it_is_and_its_jobs(self, busy: TestClient) -> None:
        text = page_of(busy, "/campaigns/1")
        assert "2 of 3 jobs have ended" in text
        assert "<strong>2</strong> succeeded" in text
        assert 'data-events="/v1/campaigns/1/events"' in text
        assert re.findall(r'id="job-(\d+)"', text) == ["3", "2", "1"]
        assert '/campaigns/1"' in page_of(busy, "/campaigns")

    def test_of_the_workers_are_what_each_does_and_whether_it_drains(self, busy: TestClient) -> None:
        second, first = page_of(busy, "/workers").split('<li class="card">')[1:][::-1]
        if "second" in first:
            first, second = second, first
        assert "Idle" in first
        assert "Draining" in second
        assert 'href="/jobs/3"' in second
        assert "&lt;b&gt;second&lt;/b&gt;" in second, "a name is text"
        assert "Resume" in second
        assert "Drain…" in first

    def test_where_there_is_nothing_is_how_to_begin(self, empty: TestClient) -> None:
        assert "ctxplan calibrate start" in page_of(empty, "/jobs")
        assert "ctxplan calibrate start" in page_of(empty, "/campaigns")
        assert "ctxplan worker --server http://testserver" in page_of(empty, "/workers")

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("/jobs/99", 404),
            ("/campaigns/99", 404),
            ("/jobs/x", 422),
            ("/jobs?state=lost", 422),
            ("/jobs?cursor=x", 422),
        ],
    )
    def test_where_an_address_is_none_is_what_is_wrong_with_it(
        self, client: TestClient, path: str, status: int
    ) -> None:
        response = client.get(path, headers=HTML)
        assert response.status_code == status
        assert len(Reader(response.text).all("h1")) == 1
        assert client.get(path).json()["status"] == status


class TestWhatIsDone:
    def test_is_asked_first_and_then_shown(self, empty: TestClient) -> None:
        (job,) = submit(empty)
        page, url = f"/jobs/{job['id']}", f"{JOBS}/{job['id']}"
        done = confirm(empty, page, f"{page}/cancellation")
        assert (done.status_code, done.headers["location"]) == (303, page)
        assert empty.get(url).json()["state"] == "cancelled"
        assert f'action="{page}/cancellation"' not in page_of(empty, page)
        assert confirm(empty, page, f"{page}/retry").status_code == 303
        assert empty.get(url).json()["state"] == "queued"

    def test_that_comes_too_late_is_explained_with_a_way_back(self, empty: TestClient) -> None:
        (job,) = submit(empty)
        page = f"/jobs/{job['id']}"
        send(empty, held := lease(empty), "result", result_of(held))
        for action in ("cancellation", "retry"):
            response = empty.post(f"{page}/{action}", headers=HTML)
            assert response.status_code == 409
            assert page in [one["href"] for one in Reader(response.text).all("a")]
            problem_of(empty.post(f"{page}/{action}"), 409, "state-conflict")

    def test_to_a_campaign_ends_its_jobs_too(self, empty: TestClient) -> None:
        begun = empty.post(JOBS, json={"calibrate": MODEL}).json()
        page = f"/campaigns/{begun['campaign']}"
        assert confirm(empty, page, f"{page}/cancellation").headers["location"] == page
        assert {one["state"] for one in empty.get(JOBS).json()["items"]} == {"cancelled"}
        assert "Cancelled" in page_of(empty, page)
        assert "data-events" not in page_of(empty, page)

    def test_to_a_quarantined_result_is_to_let_fits_read_it(self, empty: TestClient) -> None:
        (job,) = submit(empty)
        page = f"/jobs/{job['id']}"
        send(empty, held := lease(empty), "result", result_of(held, off=0.6))
        assert [one["maxlength"] for one in Reader(page_of(empty, page)).all("input") if one["name"] == "why"] == [
            "500"
        ]
        done = confirm(empty, page, f"{page}/release", why=" the driver was new ")
        assert (done.status_code, done.headers["location"]) == (303, page)
        (row,) = empty.get(MEASUREMENTS).json()["items"]
        assert (row["state"], row["quarantined"]) == ("accepted", None)
        last = empty.get(f"{JOBS}/{job['id']}").json()["events"][-1]
        assert (last["kind"], last["detail"]["why"], last["detail"]["by"]) == (
            "released",
            "the driver was new",
            "local",
        )
        assert "Quarantined" not in page_of(empty, page).partition("History")[0]
        assert f'action="{page}/release"' not in page_of(empty, page)

    def test_to_a_job_that_has_given_nothing_is_not_to_release_it(self, empty: TestClient) -> None:
        submit(empty)
        for path in ("/jobs/1/release", "/jobs/99/release"):
            assert empty.post(path, data={"why": ""}, headers=HTML).status_code == 404
        assert empty.post("/jobs/1/release", json={"why": "x"}, headers=HTML).status_code == 415

    def test_to_a_worker_is_undone_by_the_same_way(self, empty: TestClient) -> None:
        name = 'a/b?"c" & d'
        submit(empty)
        lease(empty, id=name)
        for draining in (True, False):
            text = empty.get("/workers", headers=HTML).text
            assert "Resume" in text if not draining else "Drain…" in text
            fields = {"worker": name, "draining": str(draining).lower()}
            assert empty.post("/workers/draining", data=fields, headers=HTML).status_code == 200
            assert empty.get(WORKERS).json()["items"][0]["draining"] == draining
        for fields in ({"worker": "nobody", "draining": "true"}, {"worker": name}, {"worker": name, "draining": "x"}):
            assert empty.post("/workers/draining", data=fields, headers=HTML).status_code in (404, 422)

    @pytest.mark.parametrize("site", ["cross-site", "same-site"])
    def test_is_not_done_for_a_page_of_another_site(self, empty: TestClient, site: str) -> None:
        (job,) = submit(empty)
        response = empty.post(f"/jobs/{job['id']}/cancellation", headers={**HTML, "sec-fetch-site": site})
        assert response.status_code == 403
        assert empty.get(f"{JOBS}/{job['id']}").json()["state"] == "queued"


def test_a_result_that_says_nothing_of_a_peak_is_shown_without_one(empty: TestClient) -> None:
    submit(empty)
    held = lease(empty)
    asked = parse_point(held["point"])
    document = out_of_memory(asked, steps_asked=asked.steps).model_dump(mode="json")
    assert send(empty, held, "result", document).status_code == 201
    text = page_of(empty, f"/jobs/{held['job']}")
    assert "Out of memory" in text
    assert "are expected" not in text


def test_many_jobs_are_turned_page_by_page(empty: TestClient) -> None:
    submit(empty, *(point(1024 + n) for n in range(60)))
    seen: list[str] = []
    path = "/jobs?state=queued"
    while path:
        text = page_of(empty, path)
        seen += re.findall(r'id="job-(\d+)"', text)
        older = re.search(r'href="([^"]+)" rel="next"', text)
        path = older[1].replace("&amp;", "&") if older else ""
    assert [int(one) for one in seen] == list(range(60, 0, -1))


def test_where_the_queue_is_away_its_pages_say_so_and_planning_goes_on(tmp_path: Path) -> None:
    settings = Settings(allow_hub=False, log_level="error", database_url=f"sqlite:///{tmp_path}/missing/x.db")
    with TestClient(create_app(settings)) as client:
        for path in ("/jobs", "/jobs/1", "/campaigns", "/campaigns/1", "/workers"):
            response = client.get(path, headers=HTML)
            assert response.status_code == 503
            assert path in [one["href"] for one in Reader(response.text).all("a")], "it can be tried again"
            problem_of(client.get(path), 503, "queue-unavailable")
        assert client.get("/", headers=HTML).status_code == 200


def test_a_database_that_fails_later_is_a_page_too(empty: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: Any, **__: Any) -> Any:
        raise OperationalError("select", {}, Exception("disk I/O error"))

    monkeypatch.setattr("app.jobs.service.Jobs.page", fail)
    response = empty.get("/jobs", headers=HTML)
    assert response.status_code == 503
    assert "the database does not answer" in response.text
    assert "disk I/O" not in response.text, "that is for the log"
    problem_of(empty.get("/jobs"), 503, "queue-unavailable")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "now"),
        (0.4, "now"),
        (1, "1 s ago"),
        (59, "59 s ago"),
        (60, "1 min ago"),
        (7199, "1 h ago"),
        (90_000, "1 d ago"),
        (-30, "in 30 s"),
        (-3600, "in 1 h"),
    ],
)
def test_ages_are_told_in_the_largest_unit(seconds: float, words: str) -> None:
    assert ago((NOW - timedelta(seconds=seconds)).isoformat(), NOW) == words


def test_a_point_without_an_address_is_told_all_the_same() -> None:
    config = {"model_type": "llama", "hidden_size": 64}
    asked = asked_of({"job": {"model": config, "max_seq_length": 8, "per_device_train_batch_size": 2}, "steps": 3})
    assert asked.query is None
    assert asked.way == "2 sequences"
    assert "model_type: llama" in asked.text
    assert "steps: 3" in asked.text


def test_progress_adds_up_to_the_whole_bar() -> None:
    found = progress_of({"jobs": {"succeeded": 3, "queued": 2, "leased": 1, "failed": 1}})
    assert (found.ended, found.of) == (4, 7)
    assert sum(part.width for part in found.parts) == pytest.approx(100, abs=0.01)
    assert [part.state for part in found.parts] == ["succeeded", "failed", "leased", "queued"]
    assert progress_of({"jobs": {}}).parts == ()


def test_a_worker_that_was_not_heard_of_for_two_leases_is_silent() -> None:
    workers = [
        {"id": str(age), "last_seen_at": (NOW - timedelta(seconds=age)).isoformat()} for age in (300, 121, 119, 0)
    ]
    leased = [{"id": 7, "worker": "0"}, {"id": 8, "worker": "0"}]
    rows = workers_of(workers, leased, now=NOW, lease_seconds=60)
    assert [(row.worker["id"], row.is_silent, row.jobs) for row in rows] == [
        ("0", False, (7, 8)),
        ("119", False, ()),
        ("121", True, ()),
        ("300", True, ()),
    ]
