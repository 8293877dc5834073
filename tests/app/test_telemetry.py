"""Traces: sent to a collector where one is named, with nothing secret in them, and by no other choice of ours."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from starlette.testclient import TestClient

from app.main import create_app
from app.settings import Settings
from app.telemetry import ENDPOINTS, TelemetryMissing, is_wanted, traced
from tests.app.jobs import FITS

SETTINGS = Settings(allow_hub=False, log_level="error")


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """A collector on loopback, and what it was sent."""
    sent: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    yield sent
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_request_is_a_span_with_its_route_and_without_its_key(collector: list[bytes]) -> None:
    app = create_app(SETTINGS)
    with traced(app), TestClient(app) as client:
        assert client.post("/v1/estimates?secret-question=1", json=FITS).status_code == 200
        assert client.get("/v1/tiers/none", headers={"authorization": "Bearer ctxp_secret"}).status_code == 401
        assert client.get("/healthz").status_code == 200
    told = b"".join(collector)
    assert b"/v1/estimates" in told
    assert b"service.name" in told
    assert b"ctxplan" in told
    assert b"ctxp_secret" not in told
    assert b"secret-question" not in told
    assert b"http send" not in told
    assert b"healthz" not in told


def test_a_span_has_the_callers_trace(collector: list[bytes]) -> None:
    app = create_app(SETTINGS)
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    with traced(app), TestClient(app) as client:
        client.post("/v1/estimates", json=FITS, headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
    assert bytes.fromhex(trace) in b"".join(collector)


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({}, False),
        ({ENDPOINTS[0]: "http://127.0.0.1:4318"}, True),
        ({ENDPOINTS[1]: "http://127.0.0.1:4318"}, True),
        ({ENDPOINTS[1]: ""}, False),
        ({ENDPOINTS[1]: "http://127.0.0.1:4318", "OTEL_SDK_DISABLED": "True"}, False),
    ],
)
def test_traces_are_sent_where_the_environment_names_a_collector(environment: dict[str, str], wanted: bool) -> None:
    assert is_wanted(environment) is wanted


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ENDPOINTS[0], "http://127.0.0.1:4318")
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation.fastapi", None)
    with pytest.raises(TelemetryMissing, match=r"pip install 'ctxplan\[otel\]'"), traced(create_app(SETTINGS)):
        raise AssertionError
