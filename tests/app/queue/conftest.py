from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from app.database import Database
from tests.app.queue.helpers import Queue


@pytest.fixture
async def queue(database: Database) -> AsyncIterator[Queue]:
    """A queue whose tables and history agree when the test has ended, whatever it did."""
    queue = Queue(database)
    yield queue
    await queue.assert_sound()
