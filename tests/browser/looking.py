"""How the tests look at the planner's page."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from tests.browser.driver import Browser

LOADED = "return !!document.getElementById('cards')"
"""What comes after the answer is there."""


def job_of(url: str) -> dict[str, str]:
    """The job that an address asks for, as it is written there."""
    return {key: value[0] for key, value in parse_qs(urlsplit(url).query).items()}


def overflow(window: Browser) -> int:
    """Pixels by which the page is wider than the window."""
    return int(window.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth"))
