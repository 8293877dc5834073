"""SIGTERM: what is being answered is finished, nothing new is taken, and the process leaves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.http import serving
from tests.app.jobs import FITS
from tests.probes.common import wait_for


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, int]]:
    monkeypatch.setenv("CTXPLAN_DATABASE_URL", f"sqlite+aiosqlite:///{tmp_path / 'ctxplan.db'}")
    monkeypatch.setenv("CTXPLAN_ALLOW_HUB", "false")
    with serving([sys.executable, "-m", "app", "serve", "--port", "0"]) as found:
        yield found


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_request_that_is_half_sent_is_answered_and_then_it_leaves(service: tuple[int, int]) -> None:
    port, pid = service
    body = json.dumps(FITS).encode()
    lines = ("POST /v1/estimates HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(body)}")
    head = "\r\n".join((*lines, "", ""))
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head.encode() + body[:10])
        # The request has to be in the service's hands, and not only in the kernel's: another one is answered meanwhile.
        with socket.create_connection(("127.0.0.1", port), timeout=30) as other:
            other.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert other.recv(12) == b"HTTP/1.1 200"
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: refuses(port), "nothing new is taken")
        connection.sendall(body[10:])
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"verdict"' in answer


def test_it_leaves_without_a_traceback(tmp_path: Path) -> None:
    environment = {**os.environ, "CTXPLAN_DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'ctxplan.db'}"}
    command = [sys.executable, "-m", "app", "serve", "--port", "0"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        assert b"serving on" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=30)[1]
    assert process.returncode in (0, -signal.SIGTERM)
    assert b"Traceback" not in told
