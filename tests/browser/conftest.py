"""A browser for the tests of this folder; where no Chromium is installed they skip themselves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.driver import CHROMEDRIVER, CHROMIUM, Browser, browser
from tests.browser.serving import serving


@pytest.fixture(scope="session", autouse=True)
def chromium() -> None:
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real service on loopback, which plans in a process of its own as the shipped one does."""
    with serving(tmp_path_factory.mktemp("service"), planning_processes=1) as address:
        yield address


@pytest.fixture(scope="session")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as window:
        yield window


@pytest.fixture
def window(opened: Browser, service: str) -> Iterator[Browser]:
    """The browser at a desk; whatever a test does, no page may complain or ask another host."""
    opened.look()
    opened.complaints()
    opened.requested()
    yield opened
    assert opened.complaints() == []
    assert [url for url in opened.requested() if not url.startswith((f"{service}/", "data:"))] == []
