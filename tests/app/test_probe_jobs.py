"""``/v1/probe-jobs``: what a request for measurements becomes, and how jobs are looked at, cancelled and retried."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.job_schemas import JobListing, JobWithHistory, SubmittedAnswer
from probes.points import parse_point
from tests.app.jobs import MODEL, WRONG_JSON
from tests.app.measuring import JOBS, LEASES, MEASUREMENTS, POINT, WORKER, WORKERS, lease, point, send, submit
from tests.app.test_problems import JSON, problem_of


def test_a_point_becomes_a_job_that_names_its_digest_its_card_and_the_memory_it_needs(queue_client: TestClient) -> None:
    response = queue_client.post(JOBS, json={"point": POINT})
    assert response.status_code == 201
    answer = SubmittedAnswer.model_validate_json(response.content)
    (job,) = answer.items
    assert answer.campaign is None
    assert job.state == "queued"
    assert job.digest == parse_point(POINT).digest == parse_point(job.point).digest
    assert job.requires.gpu == "H100-80GB"
    estimate = queue_client.post("/v1/estimates", json=POINT["job"]).json()
    assert job.requires.min_memory_bytes == estimate["peak_device_bytes"]["expected"]


def test_lengths_become_a_job_each_and_points_keep_their_order(queue_client: TestClient) -> None:
    lengths = {"job": {**POINT["job"], "max_seq_length": 8192}, "sequence_lengths": [4096, 2048]}
    items = submit(queue_client, lengths, point(1024))
    found = [one["point"]["job"]["sequence_length"] or one["point"]["job"]["max_seq_length"] for one in items]
    assert found == [2048, 4096, 1024]


def test_a_point_that_its_card_cannot_hold_is_still_measured_there(queue_client: TestClient) -> None:
    (job,) = submit(queue_client, {"job": {"model": MODEL, "max_seq_length": 2_000_000, "gpu": "T4-16GB"}})
    assert job["requires"]["gpu"] == "T4-16GB"
    assert job["requires"]["min_memory_bytes"] <= 16 * 2**30


def test_a_point_for_a_smaller_card_goes_to_any_card_that_is_as_large(queue_client: TestClient) -> None:
    (job,) = submit(queue_client, point(cap_bytes=24 * 2**30))
    assert job["requires"] == {"gpu": None, "min_memory_bytes": 24 * 2**30, "versions": {}}


def test_what_is_required_goes_before_what_would_be_assumed(queue_client: TestClient) -> None:
    requires = {"gpu": "NVIDIA H200", "min_memory_bytes": 7, "versions": {"torch": "2.11.0"}}
    (job,) = submit(queue_client, requires=requires, priority=3)
    assert job["requires"] == {**requires, "gpu": "H200-141GB"}
    assert job["priority"] == 3
    (job,) = submit(queue_client, requires={"gpu": None})
    assert job["requires"]["gpu"] is None
    (job,) = submit(queue_client, {"job": {**POINT["job"], "versions": {"torch": "2.10.0"}}})
    assert job["requires"]["versions"] == {"torch": "2.10.0"}


def test_the_same_request_with_the_same_key_is_taken_once(queue_client: TestClient) -> None:
    headers = {"idempotency-key": "k-1"}
    first = queue_client.post(JOBS, json={"point": POINT}, headers=headers)
    again = queue_client.post(JOBS, json={"point": POINT}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    other = queue_client.post(JOBS, json={"point": POINT, "priority": 1}, headers=headers)
    problem_of(other, 409, "idempotency-conflict")
    assert len(queue_client.get(JOBS).json()["items"]) == 1


@pytest.mark.parametrize(
    ("body", "code", "key"),
    [
        ([], "invalid-submission", None),
        ({}, "invalid-submission", "point"),
        ({"point": POINT, "points": [POINT]}, "invalid-submission", "point"),
        ({"point": POINT, "pirority": 1}, "invalid-submission", "pirority"),
        ({"point": POINT, "priority": 10**6}, "invalid-submission", "priority"),
        ({"point": POINT, "activate": "never"}, "invalid-submission", "activate"),
        ({"point": POINT, "requires": {"gpus": "x"}}, "invalid-submission", "requires.gpus"),
        ({"point": POINT, "requires": {"versions": {"torch": 2}}}, "invalid-submission", "requires.versions.torch"),
        ({"points": []}, "invalid-submission", "points"),
        ({"points": [POINT, {"job": {"model": MODEL, "r": -1}}]}, "invalid-job", "points[1].job.r"),
        ({"point": {"job": {"model": MODEL}, "steps": 0}}, "invalid-job", "point.steps"),
        ({"point": {"job": {"model": MODEL, "per_device_eval_batch_size": 4}}}, "invalid-point", "point.job.per"),
        ({"point": {"job": {"model": "/etc"}}}, "unknown-model", "point.model"),
        ({"calibrate": "nobody/nothing"}, "unknown-model", "calibrate.model"),
        ({"calibrate": {"model": MODEL, "mode": "generate", "max_new_tokens": 8}}, "invalid-point", "calibrate.mode"),
        ({"calibrate": MODEL, "batches": ["square"]}, "invalid-submission", "batches"),
    ],
)
def test_a_request_that_is_none_is_refused_by_the_name_of_its_key(
    client: TestClient, body: Any, code: str, key: str | None
) -> None:
    found = problem_of(client.post(JOBS, json=body), 422, code)
    assert str(found["errors"][0]["key"]).startswith(str(key))


@pytest.mark.parametrize("name", WRONG_JSON)
def test_a_body_that_is_not_strict_json_is_refused(client: TestClient, name: str) -> None:
    for path in (JOBS, LEASES, "/v1/measurements"):
        problem_of(client.post(path, content=WRONG_JSON[name], headers=JSON), 400, "invalid-json")


def test_the_listing_is_paged_newest_first_and_can_be_narrowed(queue_client: TestClient) -> None:
    ids = [one["id"] for one in submit(queue_client, *(point(1024 + n) for n in range(5)))]
    queue_client.post(f"{JOBS}/{ids[0]}/cancellation")
    seen, cursor = [], None
    while True:
        page = JobListing.model_validate_json(queue_client.get(JOBS, params=_given(limit=2, cursor=cursor)).content)
        seen += [one.id for one in page.items]
        cursor = page.next
        if cursor is None:
            break
    assert seen == ids[::-1]
    assert [one["id"] for one in queue_client.get(JOBS, params={"state": "cancelled"}).json()["items"]] == ids[:1]
    first = queue_client.get(JOBS, params={"limit": 2}).json()["next"]
    problem_of(queue_client.get(JOBS, params={"cursor": first, "state": "queued"}), 422, "invalid-cursor")
    problem_of(queue_client.get(JOBS, params={"state": "lost"}), 422, "invalid-request")


def test_a_job_shows_its_history_and_no_secret_of_a_lease(queue_client: TestClient) -> None:
    submit(queue_client)
    held = lease(queue_client)
    response = queue_client.get(f"{JOBS}/{held['job']}")
    job = JobWithHistory.model_validate_json(response.content)
    assert [one.kind for one in job.events] == ["submitted", "leased"]
    assert job.worker == "w1"
    assert held["token"] not in response.text
    assert "token_hash" not in response.text


def test_a_job_is_cancelled_once_and_retried_once(queue_client: TestClient) -> None:
    (job,) = submit(queue_client)
    url = f"{JOBS}/{job['id']}"
    problem_of(queue_client.post(f"{url}/retry"), 409, "state-conflict")
    assert queue_client.post(f"{url}/cancellation").json()["state"] == "cancelled"
    assert queue_client.post(f"{url}/cancellation").json()["state"] == "cancelled"
    assert queue_client.post(f"{url}/retry").json()["state"] == "queued"
    held = lease(queue_client)
    send(queue_client, held, "failure", {"why": "broken", "retriable": False})
    problem_of(queue_client.post(f"{url}/cancellation"), 409, "state-conflict")


@pytest.mark.parametrize("path", ["", "/cancellation", "/retry"])
def test_a_job_that_is_not_there_is_named(queue_client: TestClient, path: str) -> None:
    method = "POST" if path else "GET"
    problem_of(queue_client.request(method, f"{JOBS}/987654{path}"), 404, "unknown-job")
    problem_of(queue_client.request(method, f"{JOBS}/none{path}"), 422, "invalid-request")


def test_planning_goes_on_where_the_database_cannot_be_opened(tmp_path: Any) -> None:
    from app.main import create_app
    from app.settings import Settings

    settings = Settings(allow_hub=False, log_level="error", database_url=f"sqlite:///{tmp_path}/missing/x.db")
    with TestClient(create_app(settings)) as client:
        assert client.post("/v1/estimates", json=POINT["job"]).status_code == 200
        assert client.get("/readyz").status_code == 200
        found = problem_of(client.post(JOBS, json={"point": POINT}), 503, "queue-unavailable")
        assert "missing" not in str(found["errors"])
        problem_of(client.get(JOBS), 503, "queue-unavailable")
        problem_of(client.post(LEASES, json={"worker": WORKER}), 503, "queue-unavailable")
        problem_of(client.get(JOBS, headers={"authorization": "Bearer x"}), 401, "unauthenticated")


def test_a_database_that_cannot_be_opened_for_a_reason_that_nobody_expected_is_tried_again(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A schema that says to be of two revisions is no error of the database's."""
    from app.main import create_app
    from app.settings import Settings

    def execute(*statements: str) -> None:
        with closing(sqlite3.connect(tmp_path / "x.db")) as database, database:
            for one in statements:
                database.execute(one)

    monkeypatch.setattr("app.backend.RETRY_SECONDS", 0.0)
    execute("CREATE TABLE alembic_version (version_num TEXT)", "INSERT INTO alembic_version VALUES ('a'), ('b')")
    settings = Settings(allow_hub=False, log_level="error", database_url=f"sqlite:///{tmp_path}/x.db")
    with TestClient(create_app(settings)) as client:
        problem_of(client.get(JOBS), 503, "queue-unavailable")
        execute("DROP TABLE alembic_version")
        assert client.get(JOBS).json() == {"items": [], "next": None}


@pytest.mark.parametrize("headers", [{}, {"accept": "text/html"}], ids=["program", "browser"])
def test_where_the_database_is_nobody_is_told_but_the_log(
    headers: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from app.main import create_app
    from app.settings import Settings

    monkeypatch.delenv("CTXPLAN_CALIBRATIONS")
    url = "postgresql://me:secret@127.0.0.1:9/jobs"
    with TestClient(create_app(Settings(allow_hub=False, log_level="warning", database_url=url))) as client:
        for path in ("/jobs", JOBS, "/v1/calibrations/active"):
            response = client.get(path, headers=headers)
            assert response.status_code == 503
            assert not {"127.0.0.1", "refused", "port"} & set(response.text.split()), response.text
            assert "127.0.0.1" not in response.text
        assert "the queue's database does not answer" in client.get(JOBS).json()["detail"]
    said = capsys.readouterr().err.splitlines()
    for event in ("the queue is not available", "the calibrations failed"):
        assert any(event in line and "127.0.0.1" in line for line in said), said
    assert not any("secret" in line for line in said)


def test_a_database_that_comes_later_is_used_from_then_on(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from app.main import create_app
    from app.settings import Settings

    monkeypatch.setattr("app.backend.RETRY_SECONDS", 0.0)
    settings = Settings(allow_hub=False, log_level="error", database_url=f"sqlite:///{tmp_path}/later/x.db")
    with TestClient(create_app(settings)) as client:
        problem_of(client.get(JOBS), 503, "queue-unavailable")
        (tmp_path / "later").mkdir()
        assert client.get(JOBS).json() == {"items": [], "next": None}


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


@pytest.mark.parametrize(
    ("address", "key", "said", "allowed"),
    [
        (f"{JOBS}?stat=queued", "query.stat", 'did you mean "state"?', "state, campaign, cursor, limit"),
        (f"{JOBS}?limit=2&foo=bar", "query.foo", "unknown parameter", "state, campaign, cursor, limit"),
        (f"{MEASUREMENTS}?pionts=1", "query.pionts", 'did you mean "point"?', "state, campaign, point, job, cursor, "),
        ("/v1/observations?sate=beyond", "query.sate", 'did you mean "state"?', "state, cursor, limit"),
        ("/v1/campaigns?sate=done", "query.sate", 'did you mean "state"?', "state, cursor, limit"),
        ("/v1/calibrations?limti=1", "query.limti", 'did you mean "limit"?', "limit, after"),
        (f"{WORKERS}?state=idle", "query.state", "unknown parameter", "no parameter"),
    ],
)
def test_a_filter_that_a_listing_does_not_know_is_refused_by_name(
    client: TestClient, address: str, key: str, said: str, allowed: str
) -> None:
    found = problem_of(client.get(address), 422, "invalid-request")
    (error,) = found["errors"]
    assert error["key"] == key
    assert said in error["message"]
    assert error["allowed"].startswith(allowed)


def test_the_filters_that_a_listing_knows_are_taken_together(queue_client: TestClient) -> None:
    submit(queue_client)
    found = queue_client.get(JOBS, params={"state": "queued", "limit": 1})
    assert (found.status_code, len(found.json()["items"])) == (200, 1)
