"""A real service on loopback, in a thread of the test's process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import uvicorn

from app.listen import listen
from app.main import create_app
from app.settings import Settings


@contextmanager
def serving(folder: Path, **settings: Any) -> Iterator[str]:
    """The address of a service with calibrations and a queue of its own. Its socket listens before the server runs,
    so that a request only ever waits."""
    values: dict[str, Any] = {
        "allow_hub": False,
        "log_level": "error",
        "calibrations": folder / "calibrations",
        "database_url": f"sqlite+aiosqlite:///{folder / 'ctxplan.db'}",
        "event_seconds": 0.02,
    }
    listening = listen("127.0.0.1", 0)
    app = create_app(Settings(**{**values, **settings}))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False))
    thread = Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
