"""A browser for the tests of this folder; where no Chromium is installed they skip themselves."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Thread

import pytest
import uvicorn

from app.listen import listen
from app.main import create_app
from app.settings import Settings
from tests.browser.driver import CHROMEDRIVER, CHROMIUM, Browser, browser


@pytest.fixture(scope="session", autouse=True)
def chromium() -> None:
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a real service on loopback."""
    folder = tmp_path_factory.mktemp("service")
    settings = Settings(
        allow_hub=False,
        log_level="error",
        calibrations=folder / "calibrations",
        database_url=f"sqlite+aiosqlite:///{folder}/ctxplan.db",
    )
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None, access_log=False))
    thread = Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()


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
