"""What ``ctxplan calibrate start --watch`` hears of a campaign, from a service that is not always there."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from app.cli.service import client_of, followed

STREAM = "text/event-stream"


def events(*states: tuple[str, int]) -> bytes:
    """Events as a service, and whatever passes them on, may write them: a comment, lines without a space."""
    told = (json.dumps({"state": state, "jobs": {"queued": count}}, indent=1) for state, count in states)
    return b": still here\n\n" + b"".join(
        b"".join(f"data:{line}\n".encode() for line in one.splitlines()) + b"\n" for one in told
    )


@contextmanager
def service(port: int, answers: Sequence[tuple[int, str, bytes]], asked: list[Any]) -> Iterator[int]:
    """Answers one request after another, and breaks off each connection."""
    left = list(answers)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("authorization")))
            status, kind, body = left.pop(0)
            self.send_response(status)
            self.send_header("content-type", kind)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    class Loopback(HTTPServer):
        allow_reuse_address = True

    with Loopback(("127.0.0.1", port), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def test_it_follows_over_a_service_that_is_started_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CTXPLAN_API_KEY", "ctxp_key")
    asked: list[Any] = []
    with service(0, [(200, STREAM, events(("measuring", 2)))], asked) as port:
        client = client_of(f"http://127.0.0.1:{port}/behind")
        told = followed(client, 7)
        assert next(told)["jobs"] == {"queued": 2}
    again = threading.Event()

    def later() -> None:
        with service(port, [(200, STREAM, events(("measuring", 2), ("measuring", 1), ("done", 0)))], asked):
            again.wait(20)

    timer = threading.Timer(0.3, later)
    timer.start()
    try:
        assert [(one["state"], one["jobs"]["queued"]) for one in told] == [("measuring", 1), ("done", 0)]
    finally:
        again.set()
        timer.join()
        client.close()
    assert asked == [("/behind/v1/campaigns/7/events", "Bearer ctxp_key")] * 2


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (
            (404, "application/problem+json", b'{"code": "unknown-campaign", "detail": "there is none"}'),
            2,
            "there is none",
        ),
        ((500, "text/html", b"<p>"), 4, "answered 500"),
        ((200, "text/html", b"<p>"), 4, f"not {STREAM}"),
    ],
    ids=str,
)
def test_it_leaves_with_what_is_wrong(
    capsys: pytest.CaptureFixture[str], answer: tuple[int, str, bytes], code: int, said: str
) -> None:
    with (
        service(0, [answer], []) as port,
        client_of(f"http://127.0.0.1:{port}") as client,
        pytest.raises(SystemExit) as left,
    ):
        list(followed(client, 7))
    assert left.value.code == code
    assert said in capsys.readouterr().err
