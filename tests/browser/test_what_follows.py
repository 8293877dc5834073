"""What follows an answer, in a real browser: what to change, other cards, the tab, and the address of the JSON. It is
never another job's; and where it does not come, that is said."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.browser.driver import Browser
from tests.browser.looking import LOADED, job_of
from tests.browser.serving import serving

FAILING = """
window.failing = '/page/more';
const open = XMLHttpRequest.prototype.open;
XMLHttpRequest.prototype.open = function (method, url, ...rest) {
  const fails = window.failing && url.startsWith(window.failing);
  return open.call(this, method, fails ? '/v1/none' : url, ...rest); };
"""
"""Has a part of the page answered with 404, until ``window.failing`` is empty."""

BUSY = """
window.refused = 0;
const open = XMLHttpRequest.prototype.open;
XMLHttpRequest.prototype.open = function (method, url, ...rest) {
  const busy = window.refused < 2 && url.startsWith(arguments_[0]) && ++window.refused;
  return open.call(this, method, busy ? '/none' : url, ...rest); };
Object.defineProperty(XMLHttpRequest.prototype, 'status', {get() {
  return this.responseURL.endsWith('/none') ? 503 : 200; }});
const get = XMLHttpRequest.prototype.getResponseHeader;
XMLHttpRequest.prototype.getResponseHeader = function (name) {
  return name === 'retry-after' ? '0.05' : get.call(this, name); };
"""
"""Has the first two requests for a part of the page refused, as a service does that is busy."""

HELD = """
const [open, send] = [XMLHttpRequest.prototype.open, XMLHttpRequest.prototype.send];
XMLHttpRequest.prototype.open = function (method, url, ...rest) {
  this.isHeld = url.startsWith('/page/more');
  return open.call(this, method, url, ...rest); };
XMLHttpRequest.prototype.send = function (body) {
  if (this.isHeld) window.release = () => send.call(this, body); else send.call(this, body); };
"""
"""Keeps what follows from being sent, until ``window.release``."""

WATCHED = """
window.wrong = [];
const one = (css) => document.querySelector(css);
new MutationObserver(() => {
  const card = one('#answer .eyebrow').textContent.split(' · ').at(-1);
  const row = one('#more .cards .here th');
  if (row && row.textContent !== card && !row.closest('[inert]')) window.wrong.push([card, row.textContent]);
}).observe(document.querySelector('.right'), {childList: true, subtree: true, attributes: true});
"""
"""Writes down whenever something could be chosen that follows from another card than the answered one."""

SAID = "return !document.getElementById('missed').hidden"
CHANGE = """
const field = document.getElementById(arguments[0]);
field.value = arguments[1];
field.dispatchEvent(new Event('change', {bubbles: true}));
"""
OF_MORE = """
const parts = [...document.querySelectorAll('#more > .card')];
const inert = parts.filter((one) => one.inert);
return [document.getElementById('more').getAttribute('aria-busy'), parts.length, inert.length];
"""
"""Whether what follows is waited for, of how many parts it is, and how many of them cannot be chosen from."""


@pytest.fixture
def failing(window: Browser) -> Iterator[Browser]:
    """The browser, to which what follows is refused from the first page on."""
    with from_the_start(window, FAILING):
        yield window
    window.complaints()


@contextmanager
def from_the_start(window: Browser, script: str) -> Iterator[None]:
    """Run a script in every page before its own."""
    made = window.devtools("Page.addScriptToEvaluateOnNewDocument", source=script)
    try:
        yield
    finally:
        window.devtools("Page.removeScriptToEvaluateOnNewDocument", identifier=made["identifier"])


def test_what_does_not_follow_the_first_answer_is_said_and_asked_for_again(failing: Browser, service: str) -> None:
    failing.open(service)
    failing.wait(SAID)
    assert "could not be looked up" in failing.text("#missed")
    assert failing.run(OF_MORE) == [None, 0, 0]
    assert failing.text("#more") == ""
    assert failing.text("#verdict") == "Fits"
    failing.click("#missed [data-look]")
    failing.wait(SAID)
    failing.run("window.failing = ''")
    failing.run("document.querySelector('#missed [data-look]').focus()")
    failing.press("Enter")
    failing.wait(LOADED)
    assert not failing.run(SAID)
    assert failing.run(OF_MORE) == [None, 2, 0]


def test_what_does_not_follow_a_change_leaves_nothing_of_the_job_before(failing: Browser, service: str) -> None:
    failing.open("about:blank")
    failing.open(service)
    failing.wait(SAID)
    failing.run("window.failing = ''")
    failing.click("#missed [data-look]")
    failing.wait(LOADED)
    assert "It fits." in failing.text("#more")
    failing.run("window.failing = '/page/more'")
    failing.type("#max_seq_length", "400000")
    failing.wait_for_text("#verdict", "Does not fit")
    failing.wait(SAID)
    assert failing.text("#more") == ""
    failing.run("window.failing = ''")
    failing.type("#max_seq_length", "300000")
    failing.wait(LOADED)
    assert not failing.run(SAID)
    assert "Ranked by what each costs" in failing.text("#more")


def test_without_a_network_what_follows_says_so_and_a_service_that_is_away_too(opened: Browser, tmp_path: Path) -> None:
    opened.look()
    opened.devtools("Network.enable")
    with serving(tmp_path) as address:
        opened.devtools("Network.setBlockedURLs", urls=["*/page/more*"])
        opened.open(address)
        opened.wait(SAID)
        opened.devtools("Network.setBlockedURLs", urls=[])
    opened.click("#missed [data-look]")
    assert "Looking for" in opened.text("#more")
    opened.wait(SAID)
    assert opened.text("#more") == ""
    opened.open("about:blank")
    opened.complaints()


def test_until_new_proposals_have_come_the_old_ones_are_dimmed_and_cannot_be_applied(
    window: Browser, service: str
) -> None:
    window.open(service)
    window.wait(LOADED)
    window.run(HELD)
    window.run(CHANGE, "gpu", "A100-40GB")
    window.wait_for_text("#verdict", "Does not fit")
    assert window.run(OF_MORE) == ["true", 2, 2]
    window.run("document.querySelector('#more a').focus()")
    assert not window.run("return document.getElementById('more').contains(document.activeElement)")
    window.wait("return getComputedStyle(document.querySelector('#more > .card')).opacity < 0.6")
    window.wait("return !!window.release")
    window.run("window.release()")
    window.wait_for_text("#more .here", "A100-40GB")
    assert window.run(OF_MORE) == [None, 2, 0]
    assert job_of(window.run("return document.querySelector('.changes .button').href"))["model"]


def test_in_the_quickest_changes_nothing_can_be_applied_to_another_job_than_the_answered_one(
    window: Browser, service: str
) -> None:
    window.open(service)
    window.wait(LOADED)
    window.run(WATCHED)
    for number, card in enumerate(("L40S-48GB", "H200-141GB", "T4-16GB", "B200-180GB", "A100-80GB") * 2):
        window.run(CHANGE, "gpu", card)
        window.wait_for_text("#answer .eyebrow", card)
        # What follows is asked for a moment after an answer: so some of it has been when the next change comes.
        window.run("return new Promise((done) => setTimeout(done, arguments[0]))", 60 * (number % 6))
    window.wait_for_text("#more .here", "A100-80GB")
    assert window.run("return window.wrong") == []


def test_what_follows_is_of_the_answer_and_not_of_what_was_typed_since(failing: Browser, service: str) -> None:
    failing.open(service)
    failing.wait(SAID)
    failing.run("window.failing = '/page/answer'")
    failing.run(CHANGE, "gpu", "A100-40GB")
    failing.wait("return !document.getElementById('lost').hidden")
    failing.click("#missed [data-look]")
    failing.wait_for_text("#more .here", "H100-80GB")
    assert "H100-80GB" in failing.text(".verdict-card .eyebrow")


@pytest.mark.parametrize("part", ["/page/", "/page/more"])
def test_a_part_that_a_busy_service_refused_is_asked_for_again(window: Browser, service: str, part: str) -> None:
    window.open(service)
    window.wait(LOADED)
    window.run(BUSY.replace("arguments_[0]", repr(part)))
    window.type("#max_seq_length", "30000")
    window.wait_for_text(".verdict-card .eyebrow", "30,000 tokens")
    window.wait("return window.refused === 2 && document.getElementById('lost').hidden")
    window.wait(f"{LOADED} && !document.getElementById('more').hasAttribute('aria-busy')")
    assert not window.run(SAID)
    window.complaints()


def test_proposals_that_a_busy_service_refused_are_said_to_come_later(window: Browser, service: str) -> None:
    window.open(service)
    window.wait(LOADED)
    window.run(BUSY.replace("arguments_[0]", "'/page/more'").replace("'0.05'", "'600'"))
    window.type("#max_seq_length", "400000")
    window.wait_for_text("#more", "The service is busy")
    assert window.run(OF_MORE) == ["true", 0, 0]
    window.complaints()


def test_a_question_without_an_answer_takes_its_name_from_the_tab_and_its_json_away(
    window: Browser, service: str
) -> None:
    window.open(f"{service}/?model=Qwen/Qwen3-8B&gpu=T4-16GB&max_seq_length=200000")
    assert window.run("return document.title").startswith("Does not fit: ")
    window.type("#r", "many")
    window.wait_for_text("#answer [role=alert]", '"many" is not accepted')
    assert window.run("return document.title") == "No answer yet · ctxplan"
    assert not window.run("return document.querySelector('#json[href], link[rel=alternate][href]')")
    assert "This page as JSON" not in window.text(".foot")
    assert "Known models" in window.text(".foot")
    window.wait("return !document.querySelector('#more').childElementCount")
    window.type("#r", "32")
    window.wait("return document.getElementById('json').href.includes('r=32')")
    assert window.run("return document.title").startswith("Does not fit: Qwen3-8B")
    answered = httpx.get(window.run("return document.getElementById('json').href")).json()["job"]
    assert (answered["model"], answered["gpu"], answered["r"]) == ("Qwen/Qwen3-8B", "T4-16GB", 32)
    assert "Known models" not in window.text(".foot")


def test_a_page_that_began_without_an_answer_has_everything_once_there_is_one(window: Browser, service: str) -> None:
    window.open(f"{service}/?model=Qwen/Qwen3-8B&gpu=L40S-48GB&r=many")
    assert window.run("return document.title") == "No answer yet · ctxplan"
    window.complaints()  # the page itself is 422
    window.type("#r", "16")
    window.wait_for_text("#verdict", "Fits")
    window.wait(LOADED)
    assert window.run("return document.title").startswith("Fits: Qwen3-8B")
    assert job_of(window.run("return document.getElementById('json').href"))["gpu"] == "L40S-48GB"


def test_a_page_that_came_whole_follows_its_form_like_any_other(window: Browser, service: str) -> None:
    window.open(f"{service}/?model=Qwen/Qwen3-8B&gpu=L40S-48GB&whole=1")
    window.run(CHANGE, "gpu", "A100-40GB")
    window.wait_for_text("#more .here", "A100-40GB")
