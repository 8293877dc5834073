"""Who asks for what takes long and then leaves: the place among those who wait is free at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app.main import create_app
from app.plans import Plans
from app.settings import Settings
from tests.app.jobs import FITS, MODEL

CONFIG = {"config": json.dumps(FITS), "file": "job.json"}
ASKED: tuple[tuple[str, str, str, Any], ...] = (
    ("plan", "POST", "/v1/plans", FITS),
    ("preflight", "POST", "/v1/preflight", CONFIG),
    ("ask", "GET", "/page/answer", None),
    ("ask", "GET", "/page/more", None),
    ("ask", "GET", "/", None),
    ("ask", "GET", "/planner.json", None),
)


@asynccontextmanager
async def served() -> AsyncIterator[tuple[FastAPI, dict[str, Any]]]:
    app = create_app(Settings(allow_hub=False, log_level="error"))
    async with app.router.lifespan_context(app) as state:
        yield app, dict(state or {})


async def ask(app: FastAPI, state: dict[str, Any], method: str, path: str, body: Any, leave: asyncio.Event) -> None:
    """Ask, and leave when that is due."""
    content = b"" if body is None else json.dumps(body).encode()
    told = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive() -> dict[str, Any]:
        if told:
            return told.pop()
        await leave.wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        raise AssertionError(f"nobody is there to hear {message['type']}")

    headers = [(b"host", b"testserver"), (b"content-type", b"application/json")]
    query = f"model={MODEL}".encode() if method == "GET" else b""
    scope: dict[str, Any] = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
    }
    scope |= {"headers": headers, "state": state, "scheme": "http", "http_version": "1.1", "root_path": ""}
    scope |= {"client": ("127.0.0.1", 1), "server": ("testserver", 80)}
    await app(scope, receive, send)  # type: ignore[arg-type]


async def test_a_body_that_grows_too_large_meanwhile_is_a_problem_and_no_departure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def long(*_: Any, **__: Any) -> None:
        await asyncio.sleep(600)

    monkeypatch.setattr(Plans, "ask", long)
    app = create_app(Settings(allow_hub=False, log_level="error", max_body_bytes=1024))
    async with app.router.lifespan_context(app) as state:
        transport = httpx.ASGITransport(_with(app, dict(state or {})))
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:

            async def body() -> AsyncIterator[bytes]:
                for _ in range(3):
                    yield b"x" * 1000

            answer = await asyncio.wait_for(client.request("GET", "/page/more", content=body()), 30)
    assert (answer.status_code, answer.json()["code"]) == (413, "body-too-large")
    assert answer.headers["x-request-id"]


def _with(app: FastAPI, state: dict[str, Any]) -> Callable[..., Any]:
    """The application, given what its server would give it."""

    async def served(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await app({**scope, "state": dict(state)}, receive, send)

    return served


@pytest.mark.parametrize(("name", "method", "path", "body"), ASKED, ids=[one[2] for one in ASKED])
async def test_what_nobody_waits_for_any_more_is_given_up(
    monkeypatch: pytest.MonkeyPatch, name: str, method: str, path: str, body: Any
) -> None:
    leave, given_up = asyncio.Event(), asyncio.Event()

    async def long(*_: Any, **__: Any) -> None:
        leave.set()
        try:
            await asyncio.sleep(600)
        finally:
            given_up.set()

    monkeypatch.setattr(Plans, name, long)
    async with served() as (app, state):
        await asyncio.wait_for(ask(app, state, method, path, body, leave), 30)
        assert given_up.is_set()
        assert 'status="499"' in state["metrics"].text().decode()
