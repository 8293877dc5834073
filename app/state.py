"""What the requests of one application share."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from app.calibrations import Calibrations
from app.metrics import Metrics
from app.plans import Plans
from app.tokens.service import TokenCounts

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


class State(TypedDict):
    """Made by the lifespan, read as ``request.state``."""

    plans: Plans
    calibrations: Calibrations
    tokens: TokenCounts
    metrics: Metrics
    log: FilteringBoundLogger
