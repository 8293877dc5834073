"""Where the service asks for keys, a browser shows one once, has a session from then on, and may do what that may."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.testclient import TestClient

from app.keys.attempts import MOST, SECONDS
from app.keys.form import new_key
from app.keys.sessions import LIFE, MAX_ENDED, Sessions
from app.main import create_app
from app.routers.sign_in import local
from app.security import COOKIE
from app.settings import Settings
from tests.app.measuring import CAMPAIGNS, JOBS, POINT, service
from tests.app.test_keys_over_http import SECRET, bearer, key, revoke
from tests.app.test_page import HTML, Reader
from tests.app.test_problems import problem_of

FORM = {**HTML, "content-type": "application/x-www-form-urlencoded"}


def signed_in(client: TestClient, text: str, *, to: str = "/", **headers: str) -> Any:
    return client.post("/sign-in", data={"key": text, "next": to}, headers={**HTML, **headers}, follow_redirects=False)


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[TestClient]:
    with service(url_of(tmp_path), tmp_path, require_keys=True, keys_secret=SECRET) as client:
        yield client


@pytest.fixture
def made(locked: TestClient, tmp_path: Path) -> Any:
    """Makes keys of the service."""
    opened(locked)
    return lambda *scopes, **life: key(url_of(tmp_path), *scopes, **life)


def opened(client: TestClient) -> None:
    """Wait until the service has made its database: a key that may be one has to be looked up."""
    client.get("/v1/models", headers=bearer(new_key()))


def url_of(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder}/x.db"


class TestWithoutAKey:
    @pytest.mark.parametrize(
        "path", ["/", "/?model=Qwen/Qwen3-8B&r=8", "/tiers", "/jobs", "/jobs/1", "/campaigns", "/workers"]
    )
    def test_a_page_asks_for_one_and_remembers_where_the_person_was_going(self, locked: TestClient, path: str) -> None:
        response = locked.get(path, headers=HTML)
        assert response.status_code == 401
        assert response.headers["www-authenticate"].startswith("Bearer")
        page = Reader(response.text)
        (form,) = page.all("form")
        assert (form["action"], form["method"]) == ("/sign-in", "post")
        assert [one["value"] for one in page.all("input") if one["name"] == "next"] == [path]
        assert "role" not in str(page.all("p")), "nothing was wrong yet"

    def test_a_program_is_told_as_a_program(self, locked: TestClient) -> None:
        for path in ("/", "/planner.json", "/page/answer", "/tiers", "/calibrations", "/jobs", "/workers"):
            problem_of(locked.get(path), 401, "unauthenticated")

    def test_what_a_page_is_made_of_is_there_all_the_same(self, locked: TestClient) -> None:
        links = [str(one["href"]) for one in Reader(locked.get("/", headers=HTML).text).all("link")]
        assert links
        assert {locked.get(link).status_code for link in links} == {200}

    def test_a_link_on_another_site_is_followed_once_more_so_that_the_session_comes_along(
        self, locked: TestClient
    ) -> None:
        for site, again in (("cross-site", True), ("same-site", True), ("none", False), ("same-origin", False)):
            page = Reader(locked.get("/tiers", headers={**HTML, "sec-fetch-site": site}).text)
            assert any(one.get("http-equiv") == "refresh" for one in page.all("meta")) == again, site


class TestWithAKey:
    def test_the_right_one_opens_the_page_and_what_stands_in_the_cookie_is_not_it(
        self, database_url: str, tmp_path: Path
    ) -> None:
        with service(database_url, tmp_path, require_keys=True, keys_secret=SECRET) as client:
            opened(client)
            text = key(database_url, "plan").key
            response = signed_in(client, f" {text}\n", to="/tiers?x=1")
            assert (response.status_code, response.headers["location"]) == (303, "/tiers?x=1")
            cookie = response.headers["set-cookie"]
            assert {"HttpOnly", "SameSite=strict", "Path=/"} <= {part.strip() for part in cookie.split(";")}
            assert f"Max-Age={int(LIFE.total_seconds())}" in cookie
            assert text not in cookie
            assert text[5:13] not in cookie
            assert "Secure" not in cookie
            page = client.get("/", headers=HTML)
            assert page.status_code == 200
            assert "Sign out" in page.text
            assert client.get("/v1/models").status_code == 200

    def test_over_https_the_cookie_is_for_https_alone(self, locked: TestClient, made: Any) -> None:
        locked.base_url = "https://testserver"
        response = signed_in(locked, made("plan").key)
        assert "Secure" in response.headers["set-cookie"]

    @pytest.mark.parametrize(
        "text", ["", "x", "ctxp_", pytest.param(new_key(), id="of nobody"), "<script>alert(1)</script>"]
    )
    def test_a_wrong_one_is_refused_and_not_shown_again(self, locked: TestClient, text: str) -> None:
        response = signed_in(locked, text, to="/jobs")
        assert response.status_code == 401
        assert "set-cookie" not in response.headers
        page = Reader(response.text)
        assert [one for one in page.all("p") if one.get("role") == "alert"]
        (field,) = [one for one in page.all("input") if one["name"] == "key"]
        assert "value" not in field
        assert field["aria-describedby"] == "fault"
        assert len(text) < 9 or text not in response.text
        assert [one["value"] for one in page.all("input") if one["name"] == "next"] == ["/jobs"]

    def test_an_expired_or_revoked_one_is_refused(self, locked: TestClient, made: Any, tmp_path: Path) -> None:
        gone = made("plan")
        revoke(url_of(tmp_path), gone)
        assert signed_in(locked, gone.key).status_code == 401
        short = made("plan", life=timedelta(milliseconds=1))
        assert signed_in(locked, short.key).status_code == 401

    def test_revoked_it_ends_its_sessions(
        self, locked: TestClient, made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.security.REMEMBERED_SECONDS", 0.0)
        one = made("plan")
        signed_in(locked, one.key)
        assert locked.get("/tiers", headers=HTML).status_code == 200
        revoke(url_of(tmp_path), one)
        response = locked.get("/tiers", headers=HTML)
        assert response.status_code == 401
        assert "The session has ended" in response.text

    def test_what_it_may_not_do_says_so_and_leads_to_another_key(self, locked: TestClient, made: Any) -> None:
        signed_in(locked, made("plan").key)
        page = locked.get("/", headers=HTML)
        links = [one["href"] for one in Reader(page.text).all("a")]
        assert "/tiers" in links
        assert "/jobs" not in links
        assert "/workers" not in links
        for path in ("/jobs", "/campaigns", "/workers"):
            refused = locked.get(path, headers=HTML)
            assert refused.status_code == 403
            assert "/sign-in" in [one["href"] for one in Reader(refused.text).all("a")]
        problem_of(locked.get(JOBS), 403, "missing-scope")

    def test_the_queue_needs_its_own_scope_and_draining_another(self, locked: TestClient, made: Any) -> None:
        signed_in(locked, made("measure").key)
        for path in ("/jobs", "/campaigns", "/workers"):
            assert locked.get(path, headers=HTML).status_code == 200
        assert locked.get("/", headers=HTML).status_code == 403
        drain = {"worker": "w", "draining": "true"}
        admins = ("/workers/draining", "/jobs/1/release")
        assert {locked.post(path, data=drain, headers=HTML).status_code for path in admins} == {403}
        signed_in(locked, made("admin").key)
        assert locked.post("/workers/draining", data=drain, headers=HTML).status_code == 404

    def test_a_key_in_the_header_goes_before_a_session(self, locked: TestClient, made: Any) -> None:
        signed_in(locked, made("plan").key)
        problem_of(locked.get("/v1/models", headers=bearer("x")), 401, "unauthenticated")
        assert locked.get("/jobs", headers={**HTML, **bearer(made("measure").key)}).status_code == 200

    def test_signed_out_the_session_opens_nothing_not_even_a_copy_of_it(self, locked: TestClient, made: Any) -> None:
        signed_in(locked, made("plan").key)
        copy = locked.cookies[COOKIE]
        page = locked.post("/sign-out", headers=HTML)
        assert page.status_code == 200
        assert "Max-Age=0" in page.headers["set-cookie"]
        assert COOKIE not in locked.cookies
        locked.cookies.set(COOKIE, copy)
        assert locked.get("/tiers", headers=HTML).status_code == 401

    def test_neither_the_key_nor_the_session_is_logged(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with service(url_of(tmp_path), tmp_path, require_keys=True, keys_secret=SECRET, log_level="debug") as client:
            opened(client)
            text = key(url_of(tmp_path), "plan").key
            signed_in(client, text)
            signed_in(client, text[:-1])
            session = client.cookies[COOKIE]
            client.get("/tiers", headers=HTML)
        told = capsys.readouterr()
        assert "/sign-in" in told.err
        for secret in (text, text[:-1], session, SECRET):
            assert secret not in told.out + told.err


class TestOtherSites:
    """A browser sends no session with what another site's page asks; where one did, nothing would come of it."""

    ORIGINS = ({"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "https://evil.example"})

    @pytest.mark.parametrize("headers", [*ORIGINS, {"origin": "null"}])
    def test_change_nothing_with_a_persons_session(
        self, locked: TestClient, made: Any, headers: dict[str, str]
    ) -> None:
        text = made("measure").key
        (job,) = locked.post(JOBS, json={"point": POINT}, headers=bearer(text)).json()["items"]
        signed_in(locked, text)
        for path in (f"/jobs/{job['id']}/cancellation", f"{JOBS}/{job['id']}/cancellation"):
            assert locked.post(path, headers={**HTML, **headers}).status_code == 403
        assert locked.get(f"{JOBS}/{job['id']}").json()["state"] == "queued"
        own = {"origin": "http://testserver", **HTML}
        assert locked.post(f"/jobs/{job['id']}/cancellation", headers=own).status_code == 200
        assert locked.get(f"{JOBS}/{job['id']}").json()["state"] == "cancelled"

    @pytest.mark.parametrize("headers", ORIGINS)
    def test_sign_nobody_in_or_out(self, locked: TestClient, made: Any, headers: dict[str, str]) -> None:
        text = made("plan").key
        assert signed_in(locked, text, **headers).status_code == 403
        signed_in(locked, text)
        assert locked.post("/sign-out", headers={**HTML, **headers}).status_code == 403
        assert locked.get("/tiers", headers=HTML).status_code == 200

    @pytest.mark.parametrize(
        "to",
        ["//evil.example", "https://evil.example", "/\\evil.example", "\\/evil.example", "evil", "", "/\t/evil", "/é"],
    )
    def test_are_not_where_a_person_is_sent(self, locked: TestClient, made: Any, to: str) -> None:
        response = signed_in(locked, made("plan").key, to=to)
        assert (response.status_code, response.headers["location"]) == (303, "/")
        assert local(to) == "/"

    @pytest.mark.parametrize("to", ["/", "/tiers", "/?model=Qwen/Qwen3-8B&r=8", "/?gpu=%7B%22name%22%3A1%7D"])
    def test_differ_from_this_one(self, to: str) -> None:
        assert local(to) == to


def test_what_is_no_form_is_refused(locked: TestClient) -> None:
    assert locked.post("/sign-in", json={"key": "x"}, headers=HTML).status_code == 415
    for body in (b"key=x&key=y", b"\xff", b"novalue", b"&".join(b"a%d=1" % n for n in range(30))):
        assert locked.post("/sign-in", content=body, headers=FORM).status_code == 400, body


def test_after_ten_wrong_keys_an_address_waits_and_the_right_one_waits_too(locked: TestClient, made: Any) -> None:
    text = made("plan").key
    for _ in range(MOST):
        assert signed_in(locked, new_key()).status_code == 401
    for attempt in (new_key(), text):
        response = signed_in(locked, attempt)
        assert response.status_code == 429
        assert 0 < int(response.headers["retry-after"]) <= SECONDS
        assert "Too many keys" in response.text
    assert locked.get("/v1/models", headers=bearer(text)).status_code == 200


def test_where_no_key_is_needed_there_is_nothing_to_sign_in_to(client: TestClient) -> None:
    assert "No key is needed" in client.get("/sign-in", headers=HTML).text
    assert signed_in(client, new_key(), to="/tiers").headers["location"] == "/tiers"
    stale = {**HTML, "cookie": f"{COOKIE}=of.another"}
    page = client.get("/", headers=stale)
    assert page.status_code == 200
    assert "Sign out" not in page.text


def test_where_keys_cannot_be_checked_the_page_says_so(tmp_path: Path) -> None:
    values: dict[str, Any] = {"database_url": f"sqlite:///{tmp_path}/missing/x.db", "require_keys": True}
    with TestClient(create_app(Settings(allow_hub=False, log_level="error", **values))) as client:
        assert client.get("/", headers=HTML).status_code == 401
        response = signed_in(client, new_key())
        assert response.status_code == 503
        assert "queue" in response.text
        assert client.post("/sign-out", headers=HTML).status_code == 200


class TestSessions:
    now = datetime(2026, 1, 1, tzinfo=UTC)

    def sessions(self, secret: bytes = b"s" * 32) -> Sessions:
        return Sessions(secret, clock=lambda: self.now)

    def test_say_whose_they_are_until_they_are_over(self) -> None:
        sessions = self.sessions()
        cookie = sessions.begin("abc")
        found = sessions.read(cookie)
        assert found is not None
        assert (found.key_id, found.until) == ("abc", self.now + LIFE)
        self.now += LIFE - timedelta(seconds=1)
        assert sessions.read(cookie)
        self.now += timedelta(seconds=1)
        assert sessions.read(cookie) is None

    def test_are_read_by_every_replica_and_by_nobody_with_another_secret(self) -> None:
        cookie = self.sessions().begin("abc")
        assert self.sessions().read(cookie)
        assert self.sessions(b"t" * 32).read(cookie) is None

    def test_cannot_be_altered_in_a_single_character(self) -> None:
        cookie = self.sessions().begin("abc")
        for place, character in enumerate(cookie):
            other = "x" if character != "x" else "y"
            assert self.sessions().read(cookie[:place] + other + cookie[place + 1 :]) is None

    @pytest.mark.parametrize("text", ["", ".", "a.b", "é.é", "a" * 5000, "." * 600, "\ud800.x"])
    def test_are_not_what_somebody_made_up(self, text: str) -> None:
        assert self.sessions().read(text) is None

    def test_differ_for_the_same_key_and_end_one_by_one(self) -> None:
        sessions = self.sessions()
        one, other = sessions.begin("abc"), sessions.begin("abc")
        sessions.end(one)
        sessions.end("no cookie")
        assert sessions.read(one) is None
        assert sessions.read(other)

    def test_that_were_ended_take_only_so_much_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("app.keys.sessions.MAX_ENDED", 3)
        assert MAX_ENDED >= 1000
        sessions = self.sessions()
        cookies = [sessions.begin("abc") for _ in range(5)]
        for cookie in cookies:
            sessions.end(cookie)
        assert [sessions.read(cookie) is None for cookie in cookies] == [False, False, True, True, True]


def test_while_many_guess_a_wrong_key_is_answered_later_and_a_right_one_opens_the_page(
    locked: TestClient, made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.keys.attempts.MOST_OF_ALL", 2)
    monkeypatch.setattr("app.keys.attempts.SLOW_SECONDS", 0.3)
    text = made("plan").key
    for _ in range(2):
        assert signed_in(locked, new_key()).status_code == 401
    begun = monotonic()
    assert signed_in(locked, new_key()).status_code == 401
    assert monotonic() - begun >= 0.3
    assert signed_in(locked, text).status_code == 303


def test_the_form_says_where_it_leads_to_even_with_a_query_of_its_own(locked: TestClient) -> None:
    address = '/?model=Qwen/Qwen3-8B&gpu={"name":"my card","total_bytes":50000000000}'
    page = Reader(locked.get(address, headers=HTML).text)
    (to,) = [str(one["value"]) for one in page.all("input") if one["name"] == "next"]
    assert local(to) == to
    assert parse_qs(urlsplit(to).query)["gpu"] == ['{"name":"my card","total_bytes":50000000000}']


def test_an_action_without_a_session_leads_back_to_its_page(locked: TestClient) -> None:
    page = Reader(locked.post("/jobs/7/cancellation", headers=HTML).text)
    assert [one["value"] for one in page.all("input") if one["name"] == "next"] == ["/jobs/7"]
    assert locked.get(f"{CAMPAIGNS}/1").status_code == 401
