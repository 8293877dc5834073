"""Measures points with a process of ours in place of the real one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from probes.measurement import Measurement
from probes.points import Point
from probes.supervise import Options, measure
from tests.probes.children import child
from tests.probes.common import point, work_folders

LIMIT_SECONDS = 20.0


def run(tmp_path: Path, body: str, *asked: Point, **options: Any) -> list[Measurement]:
    """Measure with a process that runs the body, and see that nothing of it is left."""
    chosen: dict[str, Any] = {"time_limit_seconds": LIMIT_SECONDS, "child": child(tmp_path, body), **options}
    measurements = measure(asked or (point(),), Options(**chosen))
    assert work_folders() == []
    return measurements
