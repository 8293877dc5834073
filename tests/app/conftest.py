from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest
import uvicorn
from starlette.testclient import TestClient

from app.listen import listen
from app.main import create_app
from app.settings import Settings
from tests.app.database.servers import database as database
from tests.app.database.servers import database_url as database_url
from tests.app.database.servers import empty_url as empty_url
from tests.app.database.servers import postgres_server as postgres_server
from tests.app.jobs import MODEL
from tests.app.measuring import service


@pytest.fixture(scope="session", autouse=True)
def no_calibrations_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The shipped calibration answers in the tests, whatever is active on the machine that runs them."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("calibrations")
        patch.setenv("CTXPLAN_CALIBRATIONS", str(folder))
        patch.setenv("CTXPLAN_DATABASE_URL", f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('queue') / 'ctxplan.db'}")
        yield folder


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings(allow_hub=False, log_level="error")


@pytest.fixture(scope="session")
def client(settings: Settings) -> Iterator[TestClient]:
    with TestClient(create_app(settings)) as client:
        yield client


@pytest.fixture(scope="session")
def server_address(settings: Settings) -> Iterator[tuple[str, int]]:
    """A real server on loopback. The socket listens before the server runs, so a request only ever waits."""
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(settings), log_config=None, access_log=False))
    thread = Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield listening.getsockname()
    server.should_exit = True
    thread.join()


@pytest.fixture
def job() -> dict[str, object]:
    return {"model": MODEL, "max_seq_length": 4096}


@pytest.fixture
def queue_client(database_url: str, tmp_path: Path) -> Iterator[TestClient]:
    """A service with a queue of its own, on each database."""
    with service(database_url, tmp_path) as client:
        yield client
