"""What the routes ask of the observations. Each answer is plain JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app.backend import Backend
from app.jobs.views import when
from app.metrics import Metrics
from app.observations.judging import Judged, State, judge
from app.observations.reading import read_observations
from app.observations.store import keep, list_observations
from app.turns import TurnsOf
from ctxplan import Planner

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

THREADS = 2
"""Of requests that wait for their observations to be judged."""


class Observations:
    """What training runs showed, over HTTP.

    Args:
        planner: the service's own, with the active calibration. known: knows the models that need no look-up.
    """

    def __init__(
        self,
        backend: Backend,
        planner: Planner,
        *,
        known: Planner,
        metrics: Metrics,
        log: FilteringBoundLogger,
        turns: TurnsOf,
    ) -> None:
        self._backend = backend
        self._planner = planner
        self._known = known
        self._metrics = metrics
        self._log = log
        self._threads = turns("observations", at_once=THREADS)

    async def take_in(self, data: Any, *, submitter: str) -> tuple[dict[str, Any], bool]:
        """Keep observations, all or none; whether one of them is new. Raises InvalidSubmission."""
        judged = await self._threads.in_thread(self._judged, data)
        now = self._backend.clock()
        async with (await self._backend.database()).write() as connection:
            kept = await keep(connection, data["observations"], judged, now, submitter=submitter)
        items = [{**_to_json(row), "new": is_new} for row, is_new in kept]
        self._tell([one for one in items if one["new"]])
        return {"items": items, "next": None}, any(one["new"] for one in items)

    async def page(self, *, state: State | None, limit: int, cursor: str | None) -> dict[str, Any]:
        """Some of them, newest first. Raises InvalidCursor."""
        async with (await self._backend.database()).read() as connection:
            page = await list_observations(connection, state=state, limit=limit, cursor=cursor)
        return {"items": [_to_json(one) for one in page.items], "next": page.next}

    def _judged(self, data: Any) -> list[Judged]:
        return [judge(one, self._planner, known=self._known) for one in read_observations(data)]

    def _tell(self, kept: list[dict[str, Any]]) -> None:
        """Count what is kept now, and log what lies beyond the bound."""
        for one in kept:
            self._metrics.observed(one["state"])
            if one["drift"]:
                self._log.warning("observation beyond the bound", observation=one["id"], detail=one["drift"])


def _to_json(row: Any) -> dict[str, Any]:
    return {
        "id": row.id,
        "state": row.state,
        "drift": row.drift,
        "seen_bytes": row.seen_bytes,
        "expected_bytes": row.expected_bytes,
        "bound_bytes": row.bound_bytes,
        "calibration": row.calibration,
        "received_at": when(row.received_at),
        "document": row.document,
    }
