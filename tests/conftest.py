"""What every test stands on.

Set before any test is collected: settings are also made where a module is imported.
"""

from __future__ import annotations

import os

import pytest

# No service of a test refuses a request because the machine that runs the tests has other things to do.
os.environ["CTXPLAN_MAX_LAG_MS"] = "10000"
# No service of a test starts a process for plans, but those that ask for it.
os.environ["CTXPLAN_PLANNING_PROCESSES"] = "0"
# What Starlette's test client calls every service.
os.environ["CTXPLAN_ALLOWED_HOSTS"] = "testserver"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slowest tests are run where that is asked for."""
    if os.environ.get("CTXPLAN_SLOW_TESTS"):
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: make test-slow"))
