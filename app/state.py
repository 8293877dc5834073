"""What the requests of one application share."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, TypedDict

from app.backend import Backend
from app.calibrations import Calibrations
from app.jobs.service import Jobs
from app.metrics import Metrics
from app.observations.service import Observations
from app.plans import Plans
from app.security import Gate
from app.tokens.service import TokenCounts

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger


class State(TypedDict):
    """Made by the lifespan, read as ``request.state``. ``stopping`` is set when the server begins to stop."""

    plans: Plans
    calibrations: Calibrations
    backend: Backend
    gate: Gate
    jobs: Jobs
    observations: Observations
    event_seconds: float
    stopping: Event
    tokens: TokenCounts
    metrics: Metrics
    log: FilteringBoundLogger
