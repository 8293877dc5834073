"""What a key opens: every route declares a scope, or that it is open, and holds to it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Mount
from starlette.testclient import TestClient

from app.database import Database
from app.keys.form import new_key
from app.keys.secret import read_secret
from app.keys.store import SCOPES, KeyStore, Made
from app.main import create_app
from app.openapi import scope_of
from app.security import anyone, is_loopback, keys_are_required
from app.settings import Settings
from tests.app.jobs import FITS
from tests.app.measuring import JOBS, POINT, WORKER, WORKERS, service
from tests.app.test_problems import problem_of

SECRET = "x" * 40
REBOUND = {"host": "evil.example:8000", "origin": "http://evil.example:8000", "sec-fetch-site": "same-origin"}
ROUTES = [one for one in create_app().router.routes if isinstance(one, APIRoute)]
OPEN_ROUTES = {"/", "/docs", "/problems/{code}", "/healthz", "/readyz", "/metrics"}
OPEN_BY_NATURE = {"/openapi.json", "/static"}
NEEDED = {
    "plan": {"/v1/estimates", "/v1/max-context", "/v1/preflight", "/v1/plans", "/v1/scripts", "/v1/models", "/v1/gpus"}
    | {"/v1/tiers", "/v1/tiers/{name}", "/v1/tokens", "/v1/calibrations", "/v1/calibrations/active"}
    | {"/v1/calibrations/{id}", "/v1/calibrations/{id}/comparison"},
    "measure": {
        "/v1/probe-jobs",
        "/v1/probe-jobs/{id}",
        "/v1/probe-jobs/{id}/cancellation",
        "/v1/probe-jobs/{id}/retry",
    }
    | {"/v1/measurements", "/v1/measurements/{id}", "/v1/campaigns", "/v1/campaigns/{id}", "/v1/workers"}
    | {"/v1/campaigns/{id}/events", "/v1/campaigns/{id}/cancellation", "/v1/calibrations"}
    | {"/v1/observations"}
    | {"/jobs", "/jobs/{id}", "/jobs/{id}/cancellation", "/jobs/{id}/retry", "/workers"}
    | {"/campaigns", "/campaigns/{id}", "/campaigns/{id}/cancellation"},
    "work": {"/v1/probe-jobs/leases", "/v1/workers/{id}/heartbeat"}
    | {f"/v1/probe-jobs/{{id}}/leases/{{epoch}}/{what}" for what in ("renewal", "result", "failure", "return")},
    "admin": {"/v1/calibrations/rollback", "/v1/calibrations/{id}/activation", "/v1/workers/{id}/draining"}
    | {"/v1/measurements/{id}/release", "/workers/draining", "/jobs/{id}/release"},
}


def _method(route: APIRoute) -> str:
    return min(route.methods or ())


def key(url: str, *scopes: str, life: timedelta | None = None) -> Made:
    async def make() -> Made:
        database = Database(url)
        try:
            store = KeyStore(database, secret=SECRET.encode(), clock=lambda: datetime.now(UTC))
            return await store.create("a key", scopes, expires_in=life)
        finally:
            await database.dispose()

    return asyncio.run(make())


def revoke(url: str, made: Made) -> None:
    async def end() -> None:
        database = Database(url)
        try:
            await KeyStore(database, secret=SECRET.encode(), clock=lambda: datetime.now(UTC)).revoke(made.view.id)
        finally:
            await database.dispose()

    asyncio.run(end())


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


@pytest.fixture
def locked(database_url: str, tmp_path: Path) -> Iterator[TestClient]:
    """A service that asks for keys."""
    with service(database_url, tmp_path, require_keys=True, keys_secret=SECRET) as client:
        yield client


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{_method(route)} {route.path_format}")
def test_every_route_declares_what_it_needs(route: APIRoute) -> None:
    scope = scope_of(route)
    is_open = any(one.dependency is anyone for one in route.dependencies)
    assert (scope is None) == is_open, "a scope or openness, and not both"
    if scope is None:
        assert route.path_format in OPEN_ROUTES or not route.path_format.startswith("/v1")
    else:
        assert route.path_format in NEEDED[scope] or (scope == "plan" and not route.path_format.startswith("/v1"))


def test_nothing_else_is_served_than_routes_the_document_and_static_files() -> None:
    others = [one for one in create_app().router.routes if not isinstance(one, APIRoute)]
    assert {getattr(one, "path", None) for one in others} == OPEN_BY_NATURE
    assert any(isinstance(one, Mount) for one in others)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_opens_the_routes_of_its_scope_and_no_other(locked: TestClient, database_url: str, scope: str) -> None:
    headers = bearer(key(database_url, scope).key)
    for route in ROUTES:
        needed = scope_of(route)
        if needed is None or route.path_format.endswith("/events"):
            continue
        path = route.path_format.replace("{id}", "1").replace("{epoch}", "1").replace("{name}", "x")
        response = locked.request(_method(route), path, headers={**headers, "lease-token": "x"})
        if needed == scope:
            assert response.status_code not in (401, 403), (path, response.text)
        else:
            problem_of(response, 403, "missing-scope")


def test_without_a_key_only_what_is_open_answers(locked: TestClient) -> None:
    for route in ROUTES:
        path = route.path_format.replace("{id}", "1").replace("{epoch}", "1").replace("{name}", "x")
        path = path.replace("{code}", "invalid-job")
        response = locked.request(_method(route), path)
        if scope_of(route) is not None:
            problem_of(response, 401, "unauthenticated")
            assert response.headers["www-authenticate"].startswith("Bearer")
        else:
            assert response.status_code not in (401, 403), path
    assert locked.get("/openapi.json").status_code == 200
    assert locked.get("/static/docs.js").status_code == 200


@pytest.mark.parametrize(
    "header",
    ["", "Bearer", "Bearer ", "Basic dTpw", "Bearer x", f"Bearer {new_key()}", f"Token {new_key()}", "Bearer ctxp_é"],
    ids=["empty", "no key", "an empty key", "another scheme", "no form", "unknown", "unknown scheme", "letters"],
)
def test_a_key_that_is_none_opens_nothing(locked: TestClient, header: str) -> None:
    headers = {"authorization": header.encode()}
    response = locked.post("/v1/estimates", json=FITS, headers=headers)
    problem_of(response, 401, "unauthenticated")


def test_a_key_opens_until_it_is_revoked(
    locked: TestClient, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.security.REMEMBERED_SECONDS", 0.0)
    made = key(database_url, "plan")
    assert locked.post("/v1/estimates", json=FITS, headers=bearer(made.key)).status_code == 200
    revoke(database_url, made)
    problem_of(locked.post("/v1/estimates", json=FITS, headers=bearer(made.key)), 401, "unauthenticated")


def test_a_key_that_expired_meanwhile_is_refused_even_where_it_is_remembered(
    locked: TestClient, database_url: str
) -> None:
    made = key(database_url, "plan", life=timedelta(milliseconds=300))
    url, headers = "/v1/models", bearer(made.key)
    assert locked.get(url, headers=headers).status_code == 200
    until = made.view.expires_at
    assert until is not None
    while datetime.now(UTC) < until:
        pass
    problem_of(locked.get(url, headers=headers), 401, "unauthenticated")


def test_idempotency_keys_are_each_keys_own(locked: TestClient, database_url: str) -> None:
    first, second = (key(database_url, "measure") for _ in range(2))
    for made, priority in ((first, 0), (second, 1)):
        headers = {**bearer(made.key), "idempotency-key": "same"}
        response = locked.post(JOBS, json={"point": POINT, "priority": priority}, headers=headers)
        assert response.status_code == 201


def test_with_an_admin_key_calibrations_are_changed_without_the_setting(locked: TestClient, database_url: str) -> None:
    headers = bearer(key(database_url, "admin").key)
    problem_of(locked.post("/v1/calibrations/rollback", json={}, headers=headers), 409, "nothing-to-roll-back")
    assert locked.post("/v1/calibrations/shipped/activation", json={}, headers=headers).status_code == 200


def test_no_key_and_no_token_is_ever_logged(
    database_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with service(database_url, tmp_path, require_keys=True, keys_secret=SECRET, log_level="debug") as client:
        made = key(database_url, "measure", "work")
        headers = bearer(made.key)
        client.post(JOBS, json={"point": POINT}, headers=headers)
        held = client.post(f"{JOBS}/leases", json={"worker": WORKER}, headers=headers).json()
        client.post(f"{JOBS}/{held['job']}/leases/1/result", json={}, headers={**headers, "lease-token": held["token"]})
        client.post(f"{WORKERS}/w1/heartbeat", json={}, headers=bearer(made.key[:-1]))
    told = capsys.readouterr()
    assert "/v1/probe-jobs/leases" in told.err
    for secret in (made.key, made.key[:-1], held["token"], SECRET):
        assert secret not in told.out + told.err


class TestOnLoopback:
    def test_no_key_is_needed_and_one_that_is_given_is_held_to(self, queue_client: TestClient) -> None:
        assert queue_client.get(JOBS).status_code == 200
        problem_of(queue_client.get(JOBS, headers=bearer("x")), 401, "unauthenticated")

    def test_a_given_key_has_its_own_scopes_alone(self, database_url: str, tmp_path: Path) -> None:
        with service(database_url, tmp_path, keys_secret=SECRET) as client:
            headers = bearer(key(database_url, "plan").key)
            assert client.post("/v1/estimates", json=FITS, headers=headers).status_code == 200
            problem_of(client.get(JOBS, headers=headers), 403, "missing-scope")

    @pytest.mark.parametrize("site", ["cross-site", "same-site"])
    def test_a_page_of_another_site_changes_nothing(self, client: TestClient, site: str) -> None:
        headers = {"sec-fetch-site": site}
        problem_of(client.post(f"{JOBS}/1/cancellation", headers=headers), 403, "other-site")
        assert client.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("10.0.0.1", False),
        ("example.org", False),
    ],
)
def test_keys_are_needed_where_others_reach_the_address(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback
    assert keys_are_required(host, None) != loopback
    assert keys_are_required(host, True)
    assert not keys_are_required(host, False)


def test_where_keys_cannot_be_checked_nothing_is_opened(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"database_url": f"sqlite:///{tmp_path}/missing/x.db", "require_keys": True}
    with TestClient(create_app(Settings(allow_hub=False, log_level="error", **settings))) as client:
        problem_of(client.post("/v1/estimates", json=FITS, headers=bearer(new_key())), 503, "queue-unavailable")
        problem_of(client.post("/v1/estimates", json=FITS), 401, "unauthenticated")
        assert client.get("/healthz").status_code == 200


def test_a_secret_that_others_may_read_opens_nothing(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    settings = Settings(allow_hub=False, log_level="error", database_url=url, require_keys=True)
    read_secret(settings)
    (tmp_path / "x.db.secret").chmod(0o644)
    with TestClient(create_app(settings)) as client:
        problem_of(client.get("/v1/models", headers=bearer(new_key())), 503, "queue-unavailable")


class TestNames:
    """A page on the web may make its own name lead to this machine: to its browser it is the same site then."""

    def test_without_a_key_a_service_on_loopback_answers_to_its_own_names_alone(
        self, database_url: str, tmp_path: Path
    ) -> None:
        with service(database_url, tmp_path) as client:
            for refused in (
                client.post(JOBS, json={"point": POINT}, headers=REBOUND),
                client.get(JOBS, headers=REBOUND),
            ):
                problem_of(refused, 403, "other-name")
            for name in ("localhost:8000", "127.0.0.1", "[::1]:8000", "testserver", "127.0.0.2:1"):
                assert client.get(JOBS, headers={"host": name}).status_code == 200

    def test_others_names_are_let_in_where_the_operator_says_so(self, database_url: str, tmp_path: Path) -> None:
        with service(database_url, tmp_path, allowed_hosts="plans.example, evil.example") as client:
            assert client.get(JOBS, headers=REBOUND).status_code == 200

    def test_where_others_reach_it_the_key_decides(self, database_url: str, tmp_path: Path) -> None:
        with service(database_url, tmp_path, host="0.0.0.0", require_keys=False) as client:
            assert client.get(JOBS, headers={"host": "plans.example"}).status_code == 200
