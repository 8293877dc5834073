"""``python -m probes.child REQUEST.json``: measures the points of a request; `probes.protocol` says what it writes."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estimator.errors import CtxplanError
from probes.points import Point, parse_point
from probes.protocol import Events, open_events

if TYPE_CHECKING:
    from probes.child.session import Session


def main(request_file: str) -> int:
    """Measure, and say how it ended. What cannot be told apart here ends the process with its traceback."""
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    points = tuple(parse_point(point) for point in request["points"])
    events = open_events()
    try:
        _import_framework(points[0])
    except ImportError as error:
        events.write(
            _failure(0, "unavailable", f"{error.name or error} is not installed: pip install 'ctxplan[probe]'")
        )
        return 0
    from probes.child.session import Session

    cap = request.get("cap") or {}
    session = Session(
        points,
        events,
        folder=Path(request["workdir"]),
        ballast_bytes=cap.get("ballast_bytes", 0),
        snapshots=bool(request["snapshot"]),
    )
    if _ended_well(session, session.run, events):
        events.write({"event": "done"})
    return 0


def _import_framework(point: Point) -> None:
    """Unsloth before torch, transformers and trl: it patches them, and sets torch's allocator up."""
    names = ("unsloth", "trl", "datasets", "torch") if point.job.framework == "unsloth" else ("torch", "peft", "trl")
    for name in names:
        import_module(name)


def _ended_well(session: Session, run: Callable[[], None], events: Events) -> bool:
    import torch

    try:
        run()
    except torch.OutOfMemoryError as error:
        events.write(_out_of_memory(session, error))
    except MemoryError as error:
        events.write(_failure(session.index, "host_out_of_memory", str(error) or "MemoryError", session.facts_so_far()))
    except CtxplanError as error:
        events.write(_failure(session.index, "unavailable", str(error), session.facts_so_far()))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        events.write(_failure(session.index, "unavailable", f"no space left on the disk of {error.filename}"))
    except (ImportError, NotImplementedError, RuntimeError, ValueError, TypeError) as error:
        import traceback

        traceback.print_exc()
        message = f"{session.phase}: {type(error).__name__}: {error}"
        events.write(_failure(session.index, "not_supported", message[:2000], session.facts_so_far()))
    else:
        return True
    return False


def _out_of_memory(session: Session, error: Exception) -> dict[str, Any]:
    refused: dict[str, Any] = session.meter.last_refusal or {}
    message = str(error).partition("\n")[0][:500]
    described = {
        "phase": session.phase,
        "step": session.step,
        "tried_bytes": refused.get("tried_bytes"),
        "allocated_bytes": refused.get("allocated_bytes"),
        "reserved_bytes": refused.get("reserved_bytes"),
        "message": message,
    }
    event = _failure(session.index, "out_of_memory", message, session.facts_so_far())
    return {**event, "out_of_memory": described}


def _failure(index: int, kind: str, message: str, facts: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"event": "failed", "index": index, "kind": kind, "message": message, "facts": facts or {}}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
