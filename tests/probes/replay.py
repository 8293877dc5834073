"""What an H100 has measured, again: ``python tests/probes/replay.py REQUEST.json``, run as a probe is.

It answers the point that was leased, and no other, with a committed measurement of the same model on the same path:
the bytes that are expected of this point, as far off as the committed ones were of theirs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from estimator import parse_job
from probes.comparison import PLANNER
from probes.document import _OURS
from probes.measurement import Measurement, Step
from probes.points import Point, parse_point
from probes.protocol import open_events
from tests.probes.documents import believable, committed

H100 = "NVIDIA H100 80GB HBM3"


def main(request_file: str) -> None:
    """Tell the measurement of the request's only point."""
    request = json.loads(Path(request_file).read_text(encoding="utf-8"))
    (point,) = map(parse_point, request["points"])
    events = open_events()
    document = replayed(point).model_dump(mode="json")
    facts = {name: value for name, value in document.items() if name not in _OURS}
    events.write({"event": "measured", "index": 0, "facts": facts})
    events.write({"event": "done"})


def replayed(point: Point) -> Measurement:
    """The point's measurement. Raises StopIteration where nothing like it was ever measured."""
    estimate = PLANNER.estimate(point.job, trainer=point.trainer)
    row = next(row for row in committed() if _is_like(row, point, estimate.execution_path))
    before = PLANNER.estimate(parse_job(row.job), trainer=row.trainer or "sft").peak_allocated_bytes.expected
    ratio = (row.peak_allocated_bytes or 0) / before
    steps = [{**dict.fromkeys(Step.model_fields), "loss": 2.5, "seconds": 0.1}] * point.steps
    facts: dict[str, Any] = {"steps": steps, "steps_run": len(steps), "gpu": row.gpu, "stack": row.stack}
    return believable(point, times=ratio, **facts)


def _is_like(row: Measurement, point: Point, path: str) -> bool:
    is_training = row.outcome == "ok" and row.job["mode"] == "train"
    return is_training and row.gpu == H100 and row.execution_path == path and row.job["model"] == point.job.model


if __name__ == "__main__":
    main(sys.argv[1])
