"""What the requests of one application share."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from app.metrics import Metrics
from app.plans import Plans

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


class State(TypedDict):
    """Made by the lifespan, read as ``request.state``."""

    plans: Plans
    metrics: Metrics
    log: FilteringBoundLogger
