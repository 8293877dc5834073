"""What the service answers where nothing is wrong, and that its OpenAPI document says the same."""

from __future__ import annotations

import hashlib
import json
import re
from html import unescape
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from pydantic import SecretStr
from starlette.testclient import TestClient

import ctxplan
from app.main import create_app
from app.pages import STATIC
from app.settings import Settings
from tests.app.jobs import CONFIG, DOES_NOT_FIT, FITS, MODEL
from tests.app.measuring import service
from tests.app.test_keys_over_http import SECRET, key

ANSWERS = {
    "a catalogued model": FITS,
    "a job that does not fit": DOES_NOT_FIT,
    "a config object": {"model": CONFIG},
    "a described GPU": {"model": MODEL, "gpu": {"name": "My Card", "total_bytes": 24 * 2**30}},
    "plain transformers": {"model": MODEL, "framework": "transformers", "load_in_16bit": True},
    "full fine-tuning": {"model": MODEL, "full_finetuning": True},
    "generation": {"model": MODEL, "mode": "generate", "max_new_tokens": 16},
    "a config with odd keys": {"model": {**CONFIG, "": None, "huge": 10**60, "nested": [[{"x": []}]]}},
}
GETS = ("/healthz", "/readyz", "/v1/gpus", "/v1/models", "/problems/invalid-job")


def schema_of(client: TestClient, path: str, method: str) -> dict[str, Any]:
    """The schema of a route's answer, with what it refers to beside it."""
    document = client.get("/openapi.json").json()
    template = "/problems/{code}" if path.startswith("/problems/") else path
    answer = document["paths"][template][method]["responses"]["200"]["content"]["application/json"]["schema"]
    return {**answer, "components": document["components"]}


def assert_matches(schema: dict[str, Any], answer: Any) -> None:
    jsonschema_rs.Draft202012Validator(schema).validate(answer)


@pytest.mark.parametrize("path", ["/v1/estimates", "/v1/max-context", "/v1/scripts"])
@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_matches_the_openapi_document(client: TestClient, path: str, name: str) -> None:
    response = client.post(path, content=json.dumps(ANSWERS[name]), headers={"content-type": "application/json"})
    assert response.status_code == 200, response.text
    assert_matches(schema_of(client, path, "post"), json.loads(response.content))


@pytest.mark.parametrize("path", GETS)
def test_what_is_known_matches_the_openapi_document(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 200, response.text
    assert_matches(schema_of(client, path, "get"), response.json())


def test_a_problem_matches_the_openapi_document(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schema = {"$ref": "#/components/schemas/Problem", "components": document["components"]}
    assert_matches(schema, client.post("/v1/estimates", json={}).json())


def test_the_document_takes_the_jobs_that_the_service_takes(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    schema = {"$ref": "#/components/schemas/Job", "components": document["components"]}
    for job in ANSWERS.values():
        assert_matches(schema, job)


def test_the_service_and_the_library_give_the_same_numbers(client: TestClient) -> None:
    assert client.post("/v1/estimates", json=FITS).json() == ctxplan.estimate(FITS).to_json()
    assert client.post("/v1/max-context", json=FITS).json() == ctxplan.max_context(FITS).to_json()


def test_the_terms_sum_to_the_peak(client: TestClient) -> None:
    answer = client.post("/v1/estimates", json=FITS).json()
    assert sum(term["bytes"] for term in answer["terms"]) == answer["peak_allocated_bytes"]["expected"]


@pytest.mark.parametrize("name", ANSWERS)
def test_the_answers_job_keeps_its_model_and_has_no_key_missing(client: TestClient, name: str) -> None:
    job = client.post("/v1/estimates", json=ANSWERS[name]).json()["job"]
    assert job["model"] == ANSWERS[name]["model"]
    assert client.post("/v1/estimates", json=job).json()["job"] == job


def test_a_script_comes_bare_where_that_is_asked(client: TestClient) -> None:
    response = client.post("/v1/scripts", json=FITS, headers={"accept": "text/x-python"})
    assert response.headers["content-type"].startswith("text/x-python")
    assert response.headers["content-disposition"] == 'attachment; filename="unsloth_train.py"'
    assert response.text == client.post("/v1/scripts", json=FITS).json()["script"]


def test_what_utf_8_cannot_hold_is_given_back_escaped(client: TestClient) -> None:
    model = {**CONFIG, "\ud800": "\udfff"}
    body = json.dumps({"model": model})
    response = client.post("/v1/estimates", content=body, headers={"content-type": "application/json"})
    assert json.loads(response.content)["job"]["model"] == model


def test_requests_are_counted_by_route_and_not_by_path(client: TestClient) -> None:
    client.get("/problems/invalid-job")
    client.get("/some/secret/path")
    text = client.get("/metrics").text
    assert 'route="/problems/{code}",status="200"' in text
    assert "secret" not in text


def test_what_is_refused_before_it_is_routed_has_its_route_and_code_in_the_log_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = Settings(allow_hub=False, requests_per_second=1.5, max_body_bytes=1024)
    with TestClient(create_app(settings)) as client:
        client.post("/v1/workers/one/heartbeat", content=b" " * 2000)
        client.put("/v1/estimates", content=b" " * 2000)
        client.post("/nothing/here", content=b" " * 2000)
        client.get("/nothing/here")
        while client.get("/v1/gpus").status_code != 429:
            pass
        monkeypatch.setattr("app.admission.Lag.is_too_much", True)
        client.get("/v1/models")
        monkeypatch.undo()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    told = [(line["status"], line["route"], line["code"]) for line in lines if line["event"] == "request"]
    assert told == [
        (413, "/v1/workers/{id}/heartbeat", "body-too-large"),
        (413, "/v1/estimates", "body-too-large"),
        (413, "unmatched", "body-too-large"),
        (404, "unmatched", "not-found"),
        (429, "/v1/gpus", "too-many-requests"),
        (503, "/v1/models", "overloaded"),
    ]


def test_what_goes_well_has_no_code_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    with TestClient(create_app(Settings(allow_hub=False, log_level="debug"))) as client:
        assert client.get("/problems/invalid-job").json()["code"] == "invalid-job"
    (line,) = (line for line in map(json.loads, capsys.readouterr().err.splitlines()) if line["event"] == "request")
    assert (line["status"], "code" in line) == (200, False)


@pytest.mark.parametrize("has_key", [False, True])
def test_a_service_that_needs_keys_and_has_none_says_so_once(
    has_key: bool, database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if has_key:
        key(database_url, "plan")
    settings = {"require_keys": True, "keys_secret": SecretStr(SECRET), "log_level": "warning"}
    with service(database_url, tmp_path, **settings) as client:
        assert client.get("/readyz").status_code == 200  # the database is there
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    told = [line["make"] for line in lines if "there is none" in line["event"]]
    assert told == ([] if has_key else ["ctxplan keys create NAME --scope plan"])


@pytest.mark.parametrize("path", ["/", "/docs", "/problems/invalid-job"])
def test_a_page_loads_nothing_from_elsewhere(client: TestClient, path: str) -> None:
    response = client.get(path, headers={"accept": "text/html"})
    assert re.findall(r"""(?:src|href)=["'](?:\w+:)?//""", response.text) == []
    assert "<script>" not in response.text
    assert "'unsafe" not in response.headers["content-security-policy"]
    for link in re.findall(r'(?:src|href)="([^"]+)"', response.text):
        assert client.get(unescape(link)).status_code == 200, link


def test_the_documentation_reads_its_own_document_and_asks_no_validator() -> None:
    script = (STATIC / "docs.js").read_text(encoding="utf-8")
    assert 'url: "/openapi.json"' in script
    assert "validatorUrl: null" in script
    assert "http" not in script


def test_the_vendored_files_are_those_of_the_manifest() -> None:
    folder = STATIC / "swagger-ui"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    digests = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()
        for file in folder.iterdir()
        if file.name != "manifest.json"
    }
    assert digests == manifest["files"]


def test_a_directory_is_read_only_where_the_settings_allow_it(tmp_path: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    job = {"model": str(tmp_path)}
    for allowed, status in ((True, 200), (False, 422)):
        with TestClient(create_app(Settings(allow_hub=False, allow_local_models=allowed, log_level="error"))) as client:
            assert client.post("/v1/estimates", json=job).status_code == status


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTXPLAN_MAX_BODY_BYTES", "2048")
    with TestClient(create_app()) as client:
        response = client.post("/v1/estimates", content=b" " * 3000, headers={"content-type": "application/json"})
    assert response.status_code == 413
