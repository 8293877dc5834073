"""The longest context of each common card in each checkpointing mode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any, NamedTuple

from app.page.curve import COMMON_CARDS
from app.page.query import query_of_job
from app.page.words import gpu_name
from ctxplan import Planner
from ctxplan.models import ModelFacts
from estimator import Job
from estimator.errors import CtxplanError
from estimator.job import CHECKPOINTING

MODES = CHECKPOINTING
GPUS = (*COMMON_CARDS[:6], "H100-80GB", *COMMON_CARDS[6:])


class Cell(NamedTuple):
    """One card in one mode. ``query``: the job with both. ``host_bytes``: of the safe length. ``fault``: why there is
    no answer."""

    mode: str | bool
    query: str
    safe: int
    expected: int
    limited_by: str
    host_bytes: int
    current: bool
    fault: str | None

    def to_json(self) -> dict[str, Any]:
        return {
            "use_gradient_checkpointing": self.mode,
            "max_seq_length": {"expected": self.expected, "safe": self.safe},
            "limited_by": self.limited_by,
            "host_bytes": self.host_bytes,
            "fault": self.fault,
        }


class CardRow(NamedTuple):
    """One card."""

    gpu: str
    chosen: bool
    cells: tuple[Cell, ...]

    @property
    def columns(self) -> tuple[tuple[Cell, int], ...]:
        """The cells, each with how many columns it takes: why several modes have no number is said once."""
        same = groupby(self.cells, key=lambda cell: (cell.fault, cell.mode if cell.fault is None else None))
        listed = [list(cells) for _, cells in same]
        return tuple((cells[0], len(cells)) for cells in listed)

    def to_json(self) -> dict[str, Any]:
        return {"gpu": self.gpu, "modes": [cell.to_json() for cell in self.cells]}


def cards_of(job: Job, planner: Planner, facts: ModelFacts) -> tuple[CardRow, ...]:
    """Search every card and mode: some five milliseconds each, so to be called in a thread."""
    chosen = planner.estimate(job, facts).job
    name = gpu_name(chosen)
    others = [gpu for gpu in GPUS if gpu != name]
    rows: list[str | Mapping[str, Any]] = [job.gpu if name not in GPUS else name, *others]
    order = {gpu: place for place, gpu in enumerate(GPUS)}
    rows.sort(key=lambda gpu: order.get(gpu, -1) if isinstance(gpu, str) else -1)
    return tuple(
        CardRow(
            gpu if isinstance(gpu, str) else name,
            gpu == job.gpu or gpu == name,
            tuple(_cell(job, gpu, mode, chosen, planner, facts) for mode in MODES),
        )
        for gpu in rows
    )


def _cell(job: Job, gpu: str | Mapping[str, Any], mode: Any, chosen: Job, planner: Planner, facts: ModelFacts) -> Cell:
    changed = replace(job, gpu=gpu, use_gradient_checkpointing=mode)
    query = query_of_job(changed)
    current = (gpu in (job.gpu, chosen.gpu)) and mode == chosen.use_gradient_checkpointing
    try:
        found = planner.max_context(changed, facts)
    except CtxplanError as error:
        return Cell(mode, query, 0, 0, "", 0, current, str(error))
    host = found.estimate.host_bytes.expected if found.estimate else 0
    return Cell(mode, query, found.safe, found.expected, found.limited_by, host, current, None)
