"""What every benchmark that is a command says, and how it leaves."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence


def say(line: str) -> None:
    """Tell a person how far it is, on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def said(findings: Sequence[str]) -> int:
    """Tell what is wrong; the exit code: 1 where anything is."""
    for finding in findings:
        print(finding, file=sys.stderr)
    return 1 if findings else 0
