"""What is measured instead of a model: ``python standin.py LEDGER REQUEST.json``, run as a probe is.

It takes a moment, writes a line into the ledger, which says that this point was really measured, and tells the same
number as its measurement's detail. A point whose model is a config object is trained in earnest instead.

It imports nothing of ours: hundreds of them are started.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

LEAST_SECONDS, MORE_SECONDS = 0.1, 0.9
STEP = {
    "forward": None,
    "backward": None,
    "optimizer": None,
    "peak_allocated_bytes": None,
    "peak_reserved_bytes": None,
    "device_used_bytes": None,
    "loss": 2.5,
    "seconds": 0.1,
}


def main(ledger: str, request_file: str) -> None:
    """Measure the request's only point."""
    point = json.loads(Path(request_file).read_text(encoding="utf-8"))["points"][0]
    if isinstance(point["job"]["model"], dict):
        os.execv(sys.executable, [sys.executable, "-m", "probes.child", request_file])  # noqa: S606 -- no shell
    canonical = json.dumps(point, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(canonical).hexdigest()
    _tell({"event": "progress", "phase": "load", "index": 0, "step": None, "allocated_bytes": None})
    time.sleep(LEAST_SECONDS + MORE_SECONDS * int(digest[:2], 16) / 255)
    mark = secrets.token_hex(8)
    (Path(ledger) / mark).write_text(digest, encoding="utf-8")
    steps = [STEP] * point["steps"]
    facts: dict[str, Any] = {"execution_path": "cpu", "gpu": None, "steps": steps, "steps_run": len(steps)}
    facts |= {"stack": {"torch": "stand-in"}, "detail": mark, "seconds": {"steps": 0.1 * len(steps)}}
    _tell({"event": "measured", "index": 0, "facts": facts})
    _tell({"event": "done"})


def _tell(event: dict[str, Any]) -> None:
    os.write(int(os.environ["CTXPLAN_PROBE_EVENTS"]), json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
