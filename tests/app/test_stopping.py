"""Stopping: what is being answered is finished, nothing new is taken, and the process leaves with 0."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import httpx
import pytest

from benchmarks.http import serving
from tests.app.held_work import BEGUN, GO
from tests.app.jobs import FITS
from tests.app.test_telemetry import collector as collector
from tests.probes.common import said_address, wait_for


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
    lines = (
        "POST /v1/estimates HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    head = "\r\n".join((*lines, "", ""))
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(head.encode() + body[:10])
        # The request has to be in the service's hands, and not only in the kernel's: another one is answered meanwhile.
        with socket.create_connection(("127.0.0.1", port), timeout=30) as other:
            other.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert other.recv(12) == b"HTTP/1.1 200"
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: refuses(port), "nothing new is taken")
        connection.sendall(body[10:])
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"verdict"' in answer


@contextmanager
def started(code: str = "", **environment: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A service's process, which leads a group of its own, and its port, with its standard error still to be read.

    Args:
        code: run before the command line is.
    """
    program = f"{code}\nfrom app.cli import main\nmain()"
    with subprocess.Popen(
        [sys.executable, "-c", program, "serve", "--port", "0"],
        env={**os.environ, "CTXPLAN_ALLOW_HUB": "false", **environment},
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        assert process.stderr is not None
        try:
            yield process, int(said_address(process.stderr).rpartition(":")[2])
        finally:
            process.kill()


def events(log: bytes) -> list[str]:
    return [json.loads(line)["event"] for line in log.splitlines()]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_leaves_with_0_and_says_that_it_has_stopped(number: signal.Signals) -> None:
    with started() as (process, port):
        wait_for(lambda: not refuses(port), "it serves")
        process.send_signal(number)
        told = process.communicate(timeout=60)[1]
    assert (process.returncode, events(told)) == (0, ["stopped"])


def test_a_request_that_never_ends_is_told_so_at_the_limit() -> None:
    """Without one, a client that sends half a body would keep the process for as long as it likes."""
    lines = ("POST /v1/estimates HTTP/1.1", "Host: localhost", "Content-Type: application/json", "Content-Length: 10")
    with started("import app.cli.serve\napp.cli.serve.STOP_SECONDS = 1") as (process, port):
        wait_for(lambda: not refuses(port), "it serves")
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            connection.sendall("\r\n".join((*lines, "", "{")).encode())
            with socket.create_connection(("127.0.0.1", port), timeout=60) as other:
                other.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                assert other.recv(12) == b"HTTP/1.1 200"
            process.send_signal(signal.SIGTERM)
            answer = b""
            while piece := connection.recv(65536):
                answer += piece
        told = process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert answer.startswith(b"HTTP/1.1 503")
    assert b"the service was stopped before it had an answer" in answer
    assert b"retry-after: 1" in answer
    assert b"Traceback" not in told


def test_the_last_traces_are_sent_before_it_leaves(collector: list[bytes]) -> None:
    with started() as (process, port):
        answered = urlopen(f"http://127.0.0.1:{port}/v1/gpus", timeout=60)
        answered.close()
        process.send_signal(signal.SIGTERM)
        told = process.communicate(timeout=60)[1]
    assert (process.returncode, events(told)) == (0, ["stopped"])
    assert b"/v1/gpus" in b"".join(collector)


HELD_PLANS = """
import app.plans
from tests.app import held_work
app.plans.Planner = held_work
"""
ALONE, WHOLE_GROUP = os.kill, os.killpg


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("send", [ALONE, WHOLE_GROUP], ids=["to the service", "to its whole group"])
def test_a_plan_that_has_begun_is_answered_and_then_it_leaves(
    tmp_path: Path, send: Callable[[int, int], None], number: signal.Signals
) -> None:
    """A terminal and a service manager tell all processes of the group; the one that plans does not leave by itself."""
    with started(HELD_PLANS, CTXPLAN_PLANNING_PROCESSES="1", TMPDIR=str(tmp_path)) as (process, port):
        with ThreadPoolExecutor(1) as thread:
            answering = thread.submit(httpx.post, f"http://127.0.0.1:{port}/v1/plans", json=FITS, timeout=60)
            wait_for((tmp_path / BEGUN).exists, "the plan has begun")
            send(process.pid, number)
            wait_for(lambda: refuses(port), "nothing new is taken")
            assert not answering.done()
            (tmp_path / GO).touch()
            answer = answering.result(timeout=60)
        told = process.communicate(timeout=60)[1]
    assert answer.status_code == 200
    assert answer.json()["proposals"]
    assert (process.returncode, events(told)) == (0, ["stopped"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_as_soon_as_it_serves_it_leaves_with_what_it_has_started(number: signal.Signals) -> None:
    """Its planning process is still importing then, and may not have heard yet that it has nothing to hear."""
    with started(CTXPLAN_PLANNING_PROCESSES="1") as (process, _):
        os.killpg(process.pid, number)
        told = process.communicate(timeout=60)[1]
    assert process.returncode == 0
    assert events(told)[-1] == "stopped"
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
