"""What every test stands on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def patience_with_busy_cores() -> Iterator[None]:
    """No service of a test refuses a request because the machine that runs the tests has other things to do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CTXPLAN_MAX_LAG_MS", "10000")
        yield
