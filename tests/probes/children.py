"""Programs that speak the probe's protocol and end in every way in which a real one can."""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

HEAD = """
import json, os, resource, signal, subprocess, sys, time
from probes.protocol import open_events

request = json.loads(open(sys.argv[1]).read())
events = open_events()
FD = int(os.environ["CTXPLAN_PROBE_EVENTS"])
TOLD = os.path.dirname(os.path.abspath(__file__))
STEP = {
    "forward": None, "backward": None, "optimizer": None, "peak_allocated_bytes": None,
    "peak_reserved_bytes": None, "device_used_bytes": None, "loss": 2.5, "seconds": 0.1,
}
FACTS = {"execution_path": "cpu", "steps": [STEP] * 3, "steps_run": 3, "gpu": None, "stack": {"torch": "2.0"}}

def progress(index=0, phase="load", step=None):
    events.write({"event": "progress", "phase": phase, "index": index, "step": step, "allocated_bytes": None})

def measured(index=0, **facts):
    events.write({"event": "measured", "index": index, "facts": {**FACTS, **facts}})

def failed(kind, index=0, message="it went wrong", **more):
    events.write({"event": "failed", "index": index, "kind": kind, "message": message, **more})

def hang():
    while True:
        time.sleep(60)

def tell(name, text):
    "Write a file whole, for whoever waits for it."
    path = os.path.join(TOLD, name)
    with open(path + ".part", "w") as file:
        file.write(text)
    os.replace(path + ".part", path)
"""

WELL = """
for index in range(len(request["points"])):
    progress(index)
    measured(index)
events.write({"event": "done"})
"""


def child(folder: Path, body: str) -> tuple[str, ...]:
    """The command that runs the body as the measured process; what it tells lies in the same folder."""
    script = folder / "child.py"
    script.write_text(HEAD + textwrap.dedent(body))
    return (sys.executable, str(script))
