"""Measures one point for a worker: ``python -m probes.worker.measuring``.

The first line of its standard input is the order; the end of the input, which the worker's death brings too, ends this
process, and with it the probe (`probes.leash`). Standard output has JSON lines: ``{"phase": TEXT}`` as it goes on, and
at the end ``{"measurement": DOCUMENT}`` or ``{"error": {"code", "message", "unavailable"}}``.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any, NoReturn

from estimator.errors import CtxplanError
from probes.errors import ProbeUnavailable
from probes.points import parse_point
from probes.protocol import Progress
from probes.supervise import DEFAULTS, Options, measure


def main() -> None:
    # Unbuffered, since a thread that waits inside a buffered reader would hold up the interpreter's end.
    order = json.loads(_first_line())
    threading.Thread(target=_end_with_the_worker, daemon=True).start()
    try:
        (measurement,) = measure([parse_point(order["point"])], _options(order), on_progress=_tell_progress)
    except CtxplanError as error:
        unavailable = isinstance(error, ProbeUnavailable)
        _tell({"error": {"code": error.code, "message": str(error), "unavailable": unavailable}})
    else:
        _tell({"measurement": measurement.model_dump(mode="json")})


def _options(order: dict[str, Any]) -> Options:
    cache = order["cache_folder"]
    return Options(
        time_limit_seconds=order["time_limit_seconds"],
        device_index=order["device_index"],
        cache_folder=Path(cache) if cache else None,
        child=tuple(order["child"]) or DEFAULTS.child,
    )


def _tell_progress(progress: Progress) -> None:
    _tell({"phase": progress.phase if progress.step is None else f"{progress.phase} of step {progress.step}"})


def _tell(document: dict[str, Any]) -> None:
    line = json.dumps(document, allow_nan=False).encode() + b"\n"
    rest = memoryview(line)
    while rest:
        rest = rest[os.write(1, rest) :]


def _first_line() -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        piece = os.read(0, 65536)
        if not piece:
            sys.exit(1)
        line += piece
    return line


def _end_with_the_worker() -> NoReturn:
    while os.read(0, 4096):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
