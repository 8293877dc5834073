"""The queue's pages and signing in, in a real browser, against running services."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from app.database import Database, migrate
from app.keys.form import new_key
from app.keys.store import KeyStore
from tests.browser.driver import Browser
from tests.browser.serving import Queue, furnish, queue_of, serving

SECRET = "x" * 40
SAME_PAGE = "return window.wasHere === true"


@pytest.fixture(scope="module")
def measuring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A service with something in its queue."""
    with serving(tmp_path_factory.mktemp("measuring")) as address:
        furnish(address)
        yield address


@pytest.fixture
def queue(measuring: str) -> Iterator[Queue]:
    with queue_of(measuring) as found:
        yield found


@pytest.fixture
def page(opened: Browser, measuring: str) -> Iterator[Browser]:
    """The browser at a desk; no page may complain or ask another host."""
    opened.look()
    opened.complaints()
    opened.requested()
    yield opened
    assert opened.complaints() == []
    assert [url for url in opened.requested() if not url.startswith((f"{measuring}/", "data:"))] == []
    opened.open("about:blank")


def look_at(page: Browser, url: str) -> None:
    page.open(url)
    page.run("window.wasHere = true")


def test_a_campaign_is_followed_without_loading_its_page_again(page: Browser, measuring: str, queue: Queue) -> None:
    number = queue.begin("Qwen/Qwen3-0.6B")
    look_at(page, f"{measuring}/campaigns/{number}")
    assert "Measuring" in page.text("#live h2")
    jobs = queue.http.get("/v1/probe-jobs", params={"campaign": number}).json()["items"]
    assert queue.http.post(f"/v1/probe-jobs/{jobs[0]['id']}/cancellation").status_code == 200
    page.wait_for_text("#live .counts", "1 cancelled")
    page.wait("return document.getElementById('said').textContent.includes('1 of')")
    assert queue.http.post(f"/v1/campaigns/{number}/cancellation").status_code == 200
    page.wait_for_text("#live h2", "Cancelled")
    assert not page.run("return document.querySelector('#live [data-confirm]')"), "it cannot be ended twice"
    assert page.run(SAME_PAGE)


def test_a_job_is_followed_until_it_has_ended(page: Browser, measuring: str, queue: Queue) -> None:
    (job,) = queue.submit(3000)
    look_at(page, f"{measuring}/jobs/{job}")
    assert "Queued" in page.text("#live .badge")
    assert queue.http.post(f"/v1/probe-jobs/{job}/cancellation").status_code == 200
    page.wait_for_text("#live .badge", "Cancelled")
    assert page.run(SAME_PAGE)
    assert not page.run("return document.getElementById('live').hasAttribute('hx-trigger')")


def test_a_job_is_cancelled_with_the_keyboard_after_a_question(page: Browser, measuring: str, queue: Queue) -> None:
    (job,) = queue.submit(3100)
    page.open(f"{measuring}/jobs/{job}")
    page.run("document.querySelector('.confirm summary').focus()")
    page.press("Enter")
    page.wait("return document.querySelector('.confirm').open")
    assert queue.http.get(f"/v1/probe-jobs/{job}").json()["state"] == "queued"
    page.press("Tab", "Enter")
    page.wait_for_text("#live .badge", "Cancelled")
    assert page.url == f"{measuring}/jobs/{job}"
    assert queue.http.get(f"/v1/probe-jobs/{job}").json()["state"] == "cancelled"


def test_an_open_question_is_not_taken_away_by_news(page: Browser, measuring: str, queue: Queue) -> None:
    number = queue.begin("Qwen/Qwen3-4B")
    page.open(f"{measuring}/campaigns/{number}")
    page.run("document.querySelector('.confirm summary').click()")
    page.run(
        "window.asked = [];"
        "document.body.addEventListener('htmx:beforeRequest', (event) => window.asked.push(event.defaultPrevented))"
    )
    page.run("htmx.trigger('#live', 'changed')")
    assert set(page.run("return window.asked")) == {True}
    page.run("document.querySelector('.confirm summary').click()")
    page.run("htmx.trigger('#live', 'changed')")
    page.wait("return window.asked.includes(false)")
    queue.http.post(f"/v1/campaigns/{number}/cancellation")
    page.wait_for_text("#live h2", "Cancelled")


def test_a_worker_is_drained_after_a_question(page: Browser, measuring: str, queue: Queue) -> None:
    page.open(f"{measuring}/workers")
    form = "form[aria-label='Drain rented H100, Oregon']"
    page.run("document.querySelector(arguments[0]).closest('details').querySelector('summary').click()", form)
    page.click(f"{form} button")
    page.wait(
        "return document.querySelector(arguments[0]) !== null",
        "form[aria-label='Give jobs again to rented H100, Oregon']",
    )
    states = {one["id"]: one["draining"] for one in queue.http.get("/v1/workers").json()["items"]}
    assert states["w2"]
    queue.drain("w2", draining=False)


def test_a_quarantined_result_is_released_after_a_question(page: Browser, measuring: str, queue: Queue) -> None:
    (job,) = queue.submit(3200)
    while (held := queue.lease())["job"] != job:
        queue.give(held)
    queue.give(held, off=0.6)
    page.open(f"{measuring}/jobs")
    page.wait_for_text(f"tr:has(#job-{job})", "Quarantined")
    page.click(f"#job-{job}")
    page.wait_for_text("#live", "No fit reads it")
    page.click(".confirm summary")
    page.type("#why", "seen twice")
    page.press("Enter")
    page.wait_for_text(".history", "seen twice")
    assert "Quarantined" not in page.text("#live section")
    assert queue.http.get("/v1/measurements", params={"job": job}).json()["items"][0]["state"] == "accepted"


@pytest.mark.parametrize("width", [320, 390, 768])
@pytest.mark.parametrize("path", ["/jobs", "/jobs/5", "/jobs/6", "/campaigns", "/campaigns/2", "/workers", "/sign-in"])
def test_no_page_is_wider_than_a_phone(page: Browser, measuring: str, path: str, width: int) -> None:
    page.look(width=width, height=844, phone=True)
    page.open(f"{measuring}{path}")
    page.run("for (const one of document.querySelectorAll('details')) one.open = true")
    wider = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.run(wider) <= 0


def test_where_the_service_is_away_the_page_says_so_and_keeps_what_it_showed(opened: Browser, tmp_path: Path) -> None:
    opened.look()
    with serving(tmp_path) as address, queue_of(address) as queue:
        number = queue.begin("Qwen/Qwen3-4B")
        opened.open(f"{address}/campaigns/{number}")
    opened.run("htmx.trigger('#live', 'changed')")
    opened.wait("return !document.getElementById('stale').hidden")
    assert "Qwen/Qwen3-4B" in opened.text("h1")
    assert "Measuring" in opened.text("#live h2")
    opened.open("about:blank")
    opened.complaints()


def test_where_the_service_is_away_the_planner_says_so_and_keeps_its_answer(opened: Browser, tmp_path: Path) -> None:
    opened.look()
    with serving(tmp_path) as address:
        opened.open(address)
        opened.wait("return !!document.getElementById('cards')")
    opened.type("#max_seq_length", "30000")
    opened.wait("return !document.getElementById('lost').hidden")
    assert "89,389 tokens" in opened.text(".verdict-card")
    opened.open("about:blank")
    opened.complaints()


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a database, and a key of it that may plan and measure."""
    folder = tmp_path_factory.mktemp("locked")

    async def make() -> str:
        database = Database(f"sqlite+aiosqlite:///{folder}/ctxplan.db")
        try:
            await migrate(database)
            store = KeyStore(database, secret=SECRET.encode(), clock=lambda: datetime.now(UTC))
            return (await store.create("a person", ("plan", "measure"))).key
        finally:
            await database.dispose()

    return folder, asyncio.run(make())


@pytest.fixture(scope="module")
def locked(key: tuple[Path, str]) -> Iterator[str]:
    with serving(key[0], require_keys=True, keys_secret=SECRET) as address:
        yield address


class TestSigningIn:
    @pytest.fixture
    def guest(self, opened: Browser, locked: str) -> Iterator[Browser]:
        """The browser without a session. That a page is refused is said in the console, and nothing else may be."""
        opened.look()
        opened.command("DELETE", "/cookie")
        opened.complaints()
        yield opened
        told = opened.complaints()
        assert [one for one in told if "with a status of 40" not in one and "Error Code 401" not in one] == []
        opened.open("about:blank")

    def enter(self, guest: Browser, key: str) -> None:
        guest.type("#key", key)
        guest.press("Enter")

    def test_a_key_leads_to_where_the_person_was_going_and_no_script_can_read_the_session(
        self, guest: Browser, locked: str, key: tuple[Path, str]
    ) -> None:
        guest.open(f"{locked}/?model=Qwen/Qwen3-8B&gpu=L40S-48GB&max_seq_length=20000")
        assert guest.text("h1") == "Sign in"
        assert guest.run("return document.activeElement.id") == "key"
        self.enter(guest, new_key())
        guest.wait_for_text("[role=alert]", "opens nothing")
        assert guest.run("return document.getElementById('key').value") == ""
        self.enter(guest, key[1])
        guest.wait_for_text(".verdict-card .eyebrow", "Qwen3-8B · 20,000 tokens · L40S-48GB")
        assert guest.run("return document.cookie") == ""
        assert key[1] not in guest.url
        guest.type("#max_seq_length", "30000")
        guest.wait_for_text(".verdict-card .eyebrow", "30,000 tokens")
        guest.open(f"{locked}/jobs")
        assert "No job yet" in guest.text("#live")
        guest.click(".session button")
        guest.wait_for_text("h1", "Signed out")
        guest.open(f"{locked}/jobs")
        assert guest.text("h1") == "Sign in"

    def test_a_session_that_ends_while_the_page_is_open_leads_back_to_the_form(
        self, guest: Browser, locked: str, key: tuple[Path, str]
    ) -> None:
        guest.open(locked)
        self.enter(guest, key[1])
        guest.wait_for_text("#verdict", "Fits")
        guest.wait("return !!document.getElementById('cards')")
        guest.command("DELETE", "/cookie")
        guest.type("#max_seq_length", "30000")
        guest.wait_for_text("h1", "Sign in")

    def test_a_link_on_another_site_opens_with_the_session(
        self, guest: Browser, locked: str, key: tuple[Path, str], service: str
    ) -> None:
        guest.open(f"{locked}/tiers")
        self.enter(guest, key[1])
        guest.wait_for_text("h1", "Tiers")
        guest.open(service.replace("127.0.0.1", "localhost"))
        guest.run("location.href = arguments[0]", f"{locked}/calibrations")
        guest.wait_for_text("h1", "Calibrations")

    def test_without_a_key_a_program_gets_a_problem(self, locked: str) -> None:
        assert httpx.get(f"{locked}/jobs").json()["code"] == "unauthenticated"
