"""What the service refuses beside the queue.

CtxplanError
└── QueueError                (app.queue.errors)
    ├── WrongPoint            a measurement that is not of its point
    └── UnknownMeasurement    no measurement has this id
"""

from __future__ import annotations

from app.queue import QueueError


class WrongPoint(QueueError):
    """A measurement that is not of the point that it was leased for, or not of the one that it names."""

    code = "wrong-point"


class UnknownMeasurement(QueueError):
    """No measurement has this id."""

    code = "unknown-measurement"

    def __init__(self, measurement_id: int) -> None:
        super().__init__(f"there is no measurement {measurement_id}", key="measurement_id")
