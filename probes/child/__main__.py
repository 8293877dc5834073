"""``python -m probes.child REQUEST.json``: measures the points of a request; `probes.protocol` says what it writes."""

from __future__ import annotations

import errno
import json
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from estimator.errors import CtxplanError
from probes.failure import is_allocators, kind_of
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
    try:
        run()
    except Exception as error:
        kind = kind_of(error)
        if kind is None:
            raise
        traceback.print_exc()
        events.write(_described(session, kind, error))
        return False
    return True


def _described(session: Session, kind: str, error: Exception) -> dict[str, Any]:
    """The event that tells of an error."""
    facts = _facts(session)
    if kind == "out_of_memory":
        return _out_of_memory(session, error, facts)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        message = f"no space left on the disk of {error.filename}"
    elif isinstance(error, CtxplanError):
        message = str(error)
    else:
        message = f"{session.phase}: {type(error).__name__}: {error}"
    return _failure(session.index, kind, message[:2000], facts)


def _facts(session: Session) -> dict[str, Any]:
    """What is known until then. A device that failed may not even say what it holds."""
    try:
        return session.facts_so_far()
    except Exception:
        traceback.print_exc()
        return {}


def _out_of_memory(session: Session, error: Exception, facts: dict[str, Any]) -> dict[str, Any]:
    # CUDA's libraries ask the driver themselves: what torch's allocator was last refused is then another request.
    refused: dict[str, Any] = (session.meter.last_refusal if is_allocators(error) else None) or {}
    message = str(error).partition("\n")[0][:500]
    described = {
        "phase": session.phase,
        "step": session.step,
        "tried_bytes": refused.get("tried_bytes"),
        "allocated_bytes": refused.get("allocated_bytes"),
        "reserved_bytes": refused.get("reserved_bytes"),
        "message": message,
    }
    return {**_failure(session.index, "out_of_memory", message, facts), "out_of_memory": described}


def _failure(index: int, kind: str, message: str, facts: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"event": "failed", "index": index, "kind": kind, "message": message, "facts": facts or {}}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
