"""What whoever runs the service stands on: answers that a browser may have, a log without secrets, and readiness."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from starlette.testclient import TestClient

from app import backend
from app.keys.form import SHOWN_CHARACTERS, new_key
from app.logs import HIDDEN, FromLibraries, hide, make_logger
from app.main import create_app
from app.observe import SAFE
from app.queue.tokens import new_token
from app.settings import Settings
from tests.app.jobs import FITS, MODEL
from tests.app.measuring import JOBS, service
from tests.app.test_keys_over_http import SECRET, bearer, key
from tests.app.test_problems import problem_of
from tests.probes.common import said_address

QUIET: dict[str, Any] = {"allow_hub": False, "log_level": "error"}
PASSWORD = "hunter2hunter2"
HUB_TOKEN = "hf_" + "Qm7" * 11


class TestHeaders:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/healthz"),
            ("GET", "/metrics"),
            ("GET", "/v1/gpus"),
            ("GET", "/none"),
            ("DELETE", "/v1/estimates"),
            ("POST", "/v1/estimates"),
            ("GET", "/static/docs.js"),
            ("GET", "/openapi.json"),
        ],
    )
    def test_no_answer_is_taken_for_a_page_or_shown_within_one(
        self, client: TestClient, method: str, path: str
    ) -> None:
        headers = client.request(method, path).headers
        assert {(name.decode(), value.decode()) for name, value in SAFE} <= set(headers.items())

    def test_a_page_keeps_its_own_policy_and_has_one_alone(self, client: TestClient) -> None:
        headers = client.get("/", headers={"accept": "text/html"}).headers
        (policy,) = headers.get_list("content-security-policy")
        assert "script-src 'self'" in policy
        assert headers.get_list("x-content-type-options") == ["nosniff"]

    def test_a_refused_body_a_fault_and_a_shed_request_have_them_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def fail(*_: object, **__: object) -> None:
            raise RuntimeError

        with TestClient(create_app(Settings(**QUIET, max_body_bytes=1024))) as client:
            answers = [client.post("/v1/estimates", content=b" " * 2000)]
            monkeypatch.setattr("ctxplan.planning.Planner.estimate", fail)
            answers.append(client.post("/v1/estimates", json=FITS))
            monkeypatch.setattr("app.admission.Lag.is_too_much", True)
            answers.append(client.post("/v1/estimates", json=FITS))
        assert [one.status_code for one in answers] == [413, 500, 503]
        for one in answers:
            assert one.headers["x-content-type-options"] == "nosniff"
            assert one.headers["x-request-id"]


class TestLog:
    @given(before=st.text(max_size=20), after=st.text(max_size=20))
    def test_of_a_key_the_log_has_what_may_be_shown(self, before: str, after: str) -> None:
        one = new_key()
        told = hide(f"{before}{one}{after}")
        assert one[SHOWN_CHARACTERS:] not in told
        assert one[:SHOWN_CHARACTERS] in told

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            (f"token {HUB_TOKEN}.", f"token hf_{HIDDEN}."),
            ("{'authorization': 'Bearer abc.def-_='}", f"{{'authorization': 'Bearer {HIDDEN}'}}"),
            ("Authorization: Basic dXNlcjpwYXNz", f"Authorization: Basic {HIDDEN}"),
            ("ctxplan_session=abc.def; x=1", f"ctxplan_session={HIDDEN}; x=1"),
            (f"postgresql+psycopg://me:{PASSWORD}@db:5432/x", f"postgresql+psycopg://{HIDDEN}@db:5432/x"),
            ("http://127.0.0.1:8000/a@b", "http://127.0.0.1:8000/a@b"),
            ("ctxp_short, hf_x, https://docs.example.org:443/a", "ctxp_short, hf_x, https://docs.example.org:443/a"),
        ],
    )
    def test_what_is_written_as_a_secret_is_hidden_and_nothing_else(self, text: str, shown: str) -> None:
        assert hide(text) == shown

    def test_an_exceptions_own_words_are_no_way_into_the_log(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        secret = new_key()

        def fail(*_: object, **__: object) -> None:
            raise RuntimeError(f"could not send {{'Authorization': 'Bearer {secret}'}}")

        monkeypatch.setattr("ctxplan.planning.Planner.estimate", fail)
        with TestClient(create_app(Settings(**{**QUIET, "log_level": "debug"}))) as client:
            answer = client.post("/v1/estimates", json=FITS, headers={"authorization": f"Bearer {secret}"})
            assert answer.status_code == 401
            assert client.post("/v1/estimates", json=FITS).status_code == 500
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        (failed,) = (line for line in lines if line["event"] == "request failed")
        assert "could not send" in failed["exception"]
        assert failed["route"] == "/v1/estimates"
        assert not any(secret[5:] in str(line) for line in lines)

    def test_a_request_has_one_id_given_or_made_in_its_answer_its_problem_and_its_line(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with TestClient(create_app(Settings(**{**QUIET, "log_level": "info"}))) as client:
            given = client.post("/v1/estimates", json={}, headers={"x-request-id": "mine-1"})
            made = client.post("/v1/estimates", json={})
        ids = [one.headers["x-request-id"] for one in (given, made)]
        assert ids[0] == "mine-1"
        assert [one.json()["request_id"] for one in (given, made)] == ids
        lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
        assert [line["request_id"] for line in lines if line["event"] == "request"] == ids

    def test_what_libraries_log_is_a_line_as_well(self, capsys: pytest.CaptureFixture[str]) -> None:
        handler = FromLibraries(make_logger("info"))
        record = logging.LogRecord("a.library", logging.ERROR, "", 0, "lost %s", (f"http://a:{PASSWORD}@b",), None)
        handler.handle(record)
        line = json.loads(capsys.readouterr().err)
        assert (line["logger"], line["level"], line["event"]) == ("a.library", "error", f"lost http://{HIDDEN}@b")


@contextmanager
def running(log: list[str]) -> Iterator[httpx.Client]:
    """A client of a real service, whose log is there once it has ended."""
    command = [sys.executable, "-m", "app", "serve", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            with httpx.Client(base_url=said_address(process.stderr), timeout=60) as client:
                yield client
        finally:
            process.terminate()
            log.extend(process.communicate(timeout=60)[1].splitlines())


def test_whatever_is_asked_no_secret_comes_into_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real process at its most talkative, whose every line is read: answers, refusals, sign-ins, faults of the
    protocol."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'x.db'}"
    settings = {"DATABASE_URL": url, "KEYS_SECRET": SECRET, "REQUIRE_KEYS": "true", "LOG_LEVEL": "debug"}
    for name, value in {**settings, "ALLOW_HUB": "false"}.items():
        monkeypatch.setenv(f"CTXPLAN_{name}", value)
    monkeypatch.setenv("HF_TOKEN", HUB_TOKEN)
    log: list[str] = []
    wrong, token = new_key(), new_token()
    with running(log) as client:
        assert client.get("/readyz").status_code == 200  # the database is there, and its tables
        opens = key(url, "plan", "measure", "work").key
        for given in (opens, wrong, f"{opens}x"):
            for path in ("/v1/estimates", "/v1/plans", f"/none/{given}", f"{JOBS}/1/leases/1/renewal"):
                client.post(path, json={"model": MODEL}, headers={**bearer(given), "lease-token": token})
            client.get(f"/v1/tiers/{given}?key={given}", headers={**bearer(opens), "x-request-id": given})
            client.get("/v1/gpus", headers={"authorization": f"Basic {given}"})
            client.post("/v1/estimates", json={"model": MODEL, given: given}, headers=bearer(opens))
            client.post("/sign-in", data={"key": given, "to": "/"})
        seal = client.cookies["ctxplan_session"].partition(".")[2]
        client.get("/jobs")
        _break_the_protocol(client.base_url.port, wrong)
    routes = {line.get("route") for line in map(json.loads, log)}
    assert {"/v1/estimates", "/v1/tiers/{name}", "/sign-in", "/jobs", "unmatched"} <= routes
    assert any(json.loads(line).get("logger") == "uvicorn.error" for line in log)
    for secret in (opens[SHOWN_CHARACTERS:], wrong[SHOWN_CHARACTERS:], token, seal, SECRET, HUB_TOKEN):
        assert not [line for line in log if secret in line]


def _break_the_protocol(port: int | None, secret: str) -> None:
    with socket.create_connection(("127.0.0.1", port or 0), timeout=60) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nAuthorization: Bearer {secret}\r\nno header\r\n\r\n".encode())
        assert connection.recv(12) == b"HTTP/1.1 400"


class TestReadiness:
    def test_where_keys_are_needed_it_is_ready_once_they_can_be_checked(
        self, database_url: str, tmp_path: Path
    ) -> None:
        with service(database_url, tmp_path, require_keys=True, keys_secret=SecretStr(SECRET)) as client:
            assert client.get("/readyz").status_code == 200

    def test_where_they_cannot_be_it_is_not_and_where_none_are_needed_it_is(self, tmp_path: Path) -> None:
        gone = {**QUIET, "database_url": f"sqlite:///{tmp_path}/missing/x.db"}
        with TestClient(create_app(Settings(**gone, require_keys=True))) as client:
            found = problem_of(client.get("/readyz"), 503, "not-ready")
            assert "missing" not in found["detail"]
            assert client.get("/healthz").status_code == 200
        with TestClient(create_app(Settings(**gone))) as client:
            assert client.get("/readyz").status_code == 200

    def test_a_database_that_says_nothing_is_asked_once_and_not_waited_for(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked = []

        async def silent(self: backend.Backend) -> None:
            asked.append(self)
            await asyncio.Event().wait()

        monkeypatch.setattr(backend, "ANSWER_SECONDS", 0.05)
        with TestClient(create_app(Settings(**QUIET, require_keys=True, keys_secret=SecretStr(SECRET)))) as client:
            monkeypatch.setattr(backend.Backend, "keys", silent)
            for _ in range(3):
                problem_of(client.get("/readyz"), 503, "not-ready")
        assert len(asked) == 1

    def test_a_service_that_stops_is_not_ready(self) -> None:
        app = create_app(Settings(**QUIET))
        with TestClient(app) as client:
            app.state.stopping.set()
            problem_of(client.get("/readyz"), 503, "not-ready")
            assert client.post("/v1/estimates", json=FITS).status_code == 200
