"""What every test stands on.

Set before any test is collected: settings are also made where a module is imported.
"""

from __future__ import annotations

import os

# No service of a test refuses a request because the machine that runs the tests has other things to do.
os.environ["CTXPLAN_MAX_LAG_MS"] = "10000"
# What Starlette's test client calls every service.
os.environ["CTXPLAN_ALLOWED_HOSTS"] = "testserver"
