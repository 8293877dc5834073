"""What only a real server shows: sizes and nesting as they come over a socket, and answers while a look-up
waits."""

from __future__ import annotations

import json
import os
import pty
import re
import socket
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest
import uvicorn

import ctxplan
from app.listen import listen
from app.main import create_app
from app.settings import Settings
from ctxplan.models import ModelFacts, resolve_model
from estimator.errors import UnknownModel
from tests.app.jobs import FITS
from tests.probes.common import said_address

JSON = {"content-type": "application/json"}
SERVE = [sys.executable, "-m", "app", "serve", "--port", "0"]


def head(declared_bytes: int) -> bytes:
    """The head of a request whose body is said to have so many bytes."""
    lines = (
        "POST /v1/estimates HTTP/1.1",
        "Host: x",
        "Content-Type: application/json",
        f"Content-Length: {declared_bytes}",
    )
    return "\r\n".join((*lines, "", "")).encode()


@pytest.fixture
def live(server_address: tuple[str, int]) -> Any:
    with httpx.Client(base_url=f"http://127.0.0.1:{server_address[1]}") as client:
        yield client


def test_a_ten_megabyte_body_is_refused_and_the_server_goes_on(live: httpx.Client) -> None:
    assert live.post("/v1/estimates", content=b"[" * 10_000_000, headers=JSON).status_code == 413
    assert live.get("/healthz").status_code == 200


def test_a_body_in_chunks_is_refused_when_too_much_has_come(live: httpx.Client) -> None:
    chunks = (b" " * 65536 for _ in range(32))
    response = live.post("/v1/estimates", content=chunks, headers=JSON)
    assert response.status_code == 413
    assert response.json()["code"] == "body-too-large"


def test_a_declared_length_is_not_trusted(server_address: tuple[str, int]) -> None:
    with socket.create_connection(server_address) as connection:
        connection.sendall(head(99_999_999_999_999))
        assert connection.recv(65536).startswith(b"HTTP/1.1 413 ")


def test_connections_are_answered_without_nagles_delay() -> None:
    with listen("127.0.0.1", 0) as listening, socket.create_connection(listening.getsockname()):
        connection, _ = listening.accept()
        with connection:
            assert connection.proto == socket.IPPROTO_TCP


def test_nesting_that_exhausts_a_parser_is_refused(live: httpx.Client) -> None:
    response = live.post("/v1/estimates", content=b'{"model":' * 100_000, headers=JSON)
    assert response.status_code == 400
    assert response.json()["code"] == "invalid-json"


def test_a_client_that_leaves_in_the_middle_of_its_body_harms_nobody(
    live: httpx.Client, server_address: tuple[str, int]
) -> None:
    with socket.create_connection(server_address) as connection:
        connection.sendall(head(50) + b"{")
    assert live.post("/v1/estimates", json=FITS).status_code == 200


def test_a_look_up_that_waits_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked, release = Event(), Event()

    def slow(model: Any, **options: Any) -> ModelFacts:
        if model != "slow/model":
            return resolve_model(model, **options)
        asked.set()
        release.wait(30)
        raise UnknownModel("is not there", key="model")

    monkeypatch.setattr(
        "ctxplan.planning.Planner.__init__.__kwdefaults__",
        {"offline": False, "allow_local": True, "resolve": slow, "calibration": None},
    )
    listening = listen("127.0.0.1", 0)
    settings = Settings(allow_hub=False, log_level="error")
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None, access_log=False))
    threads = [Thread(target=server.run, kwargs={"sockets": [listening]})]
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    answers: list[httpx.Response] = []
    threads.append(
        Thread(
            target=lambda: answers.append(
                httpx.post(f"{address}/v1/estimates", json={"model": "slow/model"}, timeout=60)
            )
        )
    )
    for thread in threads:
        thread.start()
    try:
        assert asked.wait(30)
        assert httpx.post(f"{address}/v1/estimates", json=FITS).status_code == 200
    finally:
        release.set()
        threads[1].join()
        server.should_exit = True
        threads[0].join()
    assert json.loads(answers[0].content)["code"] == "unknown-model"


def test_its_first_line_says_where_it_serves_and_every_line_is_json() -> None:
    database = "postgresql+psycopg://me:the-password@127.0.0.1:1/plans?connect_timeout=1"
    environment = {**os.environ, "CTXPLAN_DATABASE_URL": database, "CTXPLAN_ALLOW_HUB": "false"}
    with subprocess.Popen(SERVE, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        url = said_address(process.stderr)
        assert httpx.get(f"{url}/healthz", timeout=60).status_code == 200
        process.terminate()
        assert process.wait(60) == 0
        lines = [json.loads(line) for line in process.stderr]
    assert lines[-1]["event"] == "stopped"
    assert "the-password" not in str(lines)


def test_the_line_of_its_start_has_version_and_database_at_every_level(tmp_path: Path) -> None:
    database = "postgresql+psycopg://me:the-password@127.0.0.1:1/plans?password=another"
    told = {"CTXPLAN_DATABASE_URL": database, "CTXPLAN_LOG_LEVEL": "error", "CTXPLAN_ALLOW_HUB": "false"}
    with subprocess.Popen(SERVE, env={**os.environ, **told}, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        process.terminate()
        assert process.stderr.read() == ""
    said = json.loads(line)
    assert (said["event"], said["level"], said["version"]) == ("serving", "info", ctxplan.__version__)
    assert said["address"].startswith("http://127.0.0.1:")
    assert said["database"].startswith("postgresql+psycopg://")
    assert said["database"].endswith("@127.0.0.1:1/plans")
    assert "the-password" not in line
    assert "another" not in line


def test_at_a_terminal_a_person_reads_where_it_serves() -> None:
    ours, its = pty.openpty()
    with subprocess.Popen(SERVE, env={**os.environ, "CTXPLAN_ALLOW_HUB": "false"}, stderr=its) as process:
        os.close(its)
        with os.fdopen(ours, "rb") as terminal:
            line = terminal.readline()
            process.terminate()
    assert re.fullmatch(rb"ctxplan: serving on http://127\.0\.0\.1:\d+\r\n", line)
