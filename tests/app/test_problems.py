"""Every error is a problem document of one shape."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.problems import KINDS
from app.settings import Settings
from tests.app.jobs import FITS, WRONG_JOBS, WRONG_JSON

MEMBERS = {"type", "title", "status", "detail", "instance", "code", "request_id", "errors"}
PLANS = ("/v1/estimates", "/v1/max-context", "/v1/scripts")
JSON = {"content-type": "application/json"}


def problem_of(response: Any, status: int, code: str) -> dict[str, Any]:
    """Check the shape, and give the document."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert set(document) == MEMBERS
    assert document["status"] == status
    assert document["code"] == code
    assert document["type"] == f"/problems/{code}"
    assert document["title"] == KINDS[code].title
    assert document["detail"]
    assert document["request_id"] == response.headers["x-request-id"]
    assert all(set(error) == {"key", "message", "allowed"} for error in document["errors"])
    assert "Traceback" not in response.text
    return document


@pytest.mark.parametrize("path", PLANS)
@pytest.mark.parametrize("name", WRONG_JOBS)
def test_a_wrong_job_is_refused_by_the_name_of_its_key(client: TestClient, path: str, name: str) -> None:
    job, code, key = WRONG_JOBS[name]
    if path == "/v1/max-context" and key == "sequence_length":
        pytest.skip("the longest context is looked for whatever length the job has")
    response = client.post(path, content=json.dumps(job), headers=JSON)
    document = problem_of(response, 422, code)
    assert document["errors"][0]["key"] in key.split("|")
    assert document["instance"] == path


@pytest.mark.parametrize("path", PLANS)
@pytest.mark.parametrize("name", WRONG_JSON)
def test_a_body_that_is_not_strict_json_is_refused(client: TestClient, path: str, name: str) -> None:
    problem_of(client.post(path, content=WRONG_JSON[name], headers=JSON), 400, "invalid-json")


@pytest.mark.parametrize("body", [b"[]", b"null", b"3", b'"job"', b"true"])
def test_a_body_that_is_json_and_no_object_is_an_invalid_job(client: TestClient, body: bytes) -> None:
    problem_of(client.post("/v1/estimates", content=body, headers=JSON), 422, "invalid-job")


def test_a_syntax_error_says_where_it_is(client: TestClient) -> None:
    response = client.post("/v1/estimates", content=b'{\n "model": x}', headers=JSON)
    assert "line 2, column 11" in problem_of(response, 400, "invalid-json")["detail"]


@pytest.mark.parametrize("literal", ["NaN", "1e999", "9" * 5000])
def test_a_number_that_is_none_is_refused_by_the_name_of_its_key(client: TestClient, literal: str) -> None:
    body = f'{{"model": "x", "max_seq_length": {literal}}}'
    document = problem_of(client.post("/v1/estimates", content=body, headers=JSON), 400, "invalid-json")
    assert document["errors"][0]["key"] == "max_seq_length"


@pytest.mark.parametrize("path", PLANS)
@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx", ""])
def test_another_media_type_is_refused(client: TestClient, path: str, media_type: str) -> None:
    headers = {"content-type": media_type} if media_type else {}
    problem_of(client.post(path, content=json.dumps(FITS), headers=headers), 415, "unsupported-media-type")


def test_a_charset_beside_the_media_type_is_accepted(client: TestClient) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert client.post("/v1/estimates", content=json.dumps(FITS), headers=headers).status_code == 200


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/v1", "/v1/estimates/", "/static/nothing.js", "/static/../main.py", "/problems/none"],
)
def test_a_path_that_is_not_there_is_a_problem(client: TestClient, path: str) -> None:
    problem_of(client.get(path), 404, "not-found")


def test_every_route_refuses_other_methods_and_says_which_it_takes(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    for path, operations in document["paths"].items():
        for method in {"get", "post", "put", "patch", "delete"} - set(operations):
            response = client.request(method, path.replace("{code}", "invalid-job"))
            problem_of(response, 405, "method-not-allowed")
            assert response.headers["allow"].lower() in operations


def test_a_body_over_the_limit_is_refused_by_what_it_declares(client: TestClient) -> None:
    problem_of(client.post("/v1/estimates", content=b" " * 10_000_000, headers=JSON), 413, "body-too-large")


def test_a_body_over_the_limit_is_refused_by_what_arrives(client: TestClient) -> None:
    chunks = (b" " * 65536 for _ in range(40))
    problem_of(client.post("/v1/estimates", content=chunks, headers=JSON), 413, "body-too-large")


def test_a_body_under_the_limit_may_come_in_chunks(client: TestClient) -> None:
    body = json.dumps(FITS).encode()
    chunks = (body[start : start + 7] for start in range(0, len(body), 7))
    assert client.post("/v1/estimates", content=chunks, headers=JSON).status_code == 200


def test_a_fault_of_the_service_is_a_problem_without_its_cause(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("the cause")

    monkeypatch.setattr("ctxplan.planning.Planner.estimate", fail)
    with TestClient(create_app(settings)) as client:
        response = client.post("/v1/estimates", json=FITS, headers={"x-request-id": "abc-1"})
        ready = client.get("/readyz")
    document = problem_of(response, 500, "internal-error")
    assert document["request_id"] == "abc-1"
    assert "the cause" not in response.text
    problem_of(ready, 503, "not-ready")
    logged = capsys.readouterr().err
    assert "the cause" in logged
    assert "abc-1" in logged


@pytest.mark.parametrize("code", KINDS)
def test_every_kind_of_problem_has_a_page_and_a_document(client: TestClient, code: str) -> None:
    document = client.get(f"/problems/{code}").json()
    assert document == {
        "code": code,
        "status": KINDS[code].status,
        "title": KINDS[code].title,
        "explanation": KINDS[code].explanation,
    }
    page = client.get(f"/problems/{code}", headers={"accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    assert code in page.text


def test_a_request_id_that_is_no_plain_word_is_replaced(client: TestClient) -> None:
    response = client.get("/healthz", headers={"x-request-id": "a b<script>"})
    assert response.headers["x-request-id"].isalnum()
