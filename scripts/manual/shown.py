"""What the manual shows of commands: between marks in its pages stands what the command before them prints.

<!-- shown: max-context examples/JOB.json -->
...
<!-- /shown -->
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MARKS = re.compile(r"^<!-- shown: (.+?) -->\n.*?<!-- /shown -->", re.DOTALL | re.MULTILINE)
FIRST_LINES = re.compile(r" \| head -(\d+)$")


def is_shown(page: Path) -> bool:
    """Whether a page shows what a command prints."""
    return MARKS.search(page.read_text(encoding="utf-8")) is not None


def filled(page: Path) -> str:
    """The page with what each command prints for a person on an 80-column terminal, its first lines where so asked."""
    return MARKS.sub(lambda found: _block(found[1]), page.read_text(encoding="utf-8"))


def _block(command: str) -> str:
    wanted = FIRST_LINES.search(command)
    run = subprocess.run(
        [sys.executable, "-m", "app", *FIRST_LINES.sub("", command).split()],
        env={**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,  # the exit code is the verdict's
        cwd=ROOT,
    )
    lines = [line.rstrip() for line in (run.stdout + run.stderr).strip().splitlines()]
    shown = "\n".join(lines[: int(wanted[1])] if wanted else lines)
    return f"<!-- shown: {command} -->\n```\n{shown}\n```\n<!-- /shown -->"
