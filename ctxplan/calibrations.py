"""The calibration that is shipped: fitted to the committed measurements, and used unless another is asked for."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files

from estimator.calibration.document import Calibration, read_calibration

SHIPPED = "calibration.json"


@cache
def shipped() -> Calibration:
    """The calibration of this release (``ctxplan/calibration.json``, written by ``scripts/calibration``)."""
    return read_calibration(json.loads((files("ctxplan") / SHIPPED).read_text(encoding="utf-8")))
