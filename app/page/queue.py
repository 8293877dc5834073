"""What the pages of jobs, workers and campaigns show, from the queue's answers (`app.jobs.views`)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import yaml
from anyio import to_thread
from sqlalchemy import select

from app.backend import Backend
from app.page.query import plain_values, query_of_job
from app.page.words import gpu_name, model_name
from app.queue.states import FINAL, RETRIABLE, CampaignState, State
from app.queue.tables import MEASUREMENTS
from estimator import parse_job
from estimator.calibration.document import Calibration
from estimator.errors import CtxplanError

STATES = tuple(State)
SILENT_AFTER_LEASES = 2
"""A worker that was not heard of for so many leases is taken for gone."""


class Asked(NamedTuple):
    """A point in a few words. ``query``: its job's address; None where it has none. ``text``: the whole as YAML."""

    model: str
    tokens: int
    layers: int | None
    gpu: str
    way: str
    query: str | None
    text: str


class JobRow(NamedTuple):
    """A job. ``job``: the queue's answer. ``is_quarantined``: it has given a measurement that no fit reads."""

    job: Mapping[str, Any]
    asked: Asked
    can_be_cancelled: bool
    can_be_retried: bool
    is_quarantined: bool


class Part(NamedTuple):
    """Jobs of one state, and their place on a bar. ``x``, ``width``: percent of it."""

    state: str
    jobs: int
    x: float
    width: float


class Progress(NamedTuple):
    """How far a campaign is."""

    parts: tuple[Part, ...]
    ended: int
    of: int


class WorkerRow(NamedTuple):
    """A worker. ``is_silent``: it was not heard of for longer than it may be. ``jobs``: numbers of those it holds."""

    worker: Mapping[str, Any]
    is_silent: bool
    jobs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What a job gave: a row of the measurements, and how its peak stands to what is expected.

    Attributes:
        expected_bytes, error: None where there is nothing to compare.
    """

    row: Mapping[str, Any]
    expected_bytes: int | None
    error: float | None


def row_of(job: Mapping[str, Any], quarantined: Collection[int] = ()) -> JobRow:
    """A job as a row of a listing. ``quarantined``: numbers of jobs, as `quarantined_of` finds them."""
    state = State(job["state"])
    return JobRow(job, asked_of(job["point"]), state not in FINAL, state in RETRIABLE, job["id"] in quarantined)


async def quarantined_of(backend: Backend, jobs: Iterable[Mapping[str, Any]]) -> frozenset[int]:
    """The numbers of those jobs whose measurement is quarantined. Raises QueueUnavailable."""
    ended = [job["id"] for job in jobs if job["state"] == State.SUCCEEDED]
    if not ended:
        return frozenset()
    found = select(MEASUREMENTS.c.job_id).where(MEASUREMENTS.c.state == "quarantined", MEASUREMENTS.c.job_id.in_(ended))
    async with (await backend.database()).read() as connection:
        return frozenset((await connection.execute(found)).scalars())


def asked_of(point: Mapping[str, Any]) -> Asked:
    """A point in words."""
    job = parse_job(point["job"])
    how = {key: value for key, value in point.items() if key != "job" and value not in (None, [], {})}
    try:
        query = query_of_job(job)
    except CtxplanError:
        query = None
    ways = ("generation" if job.mode == "generate" else "", "transformers" if job.framework != "unsloth" else "")
    batch = job.per_device_train_batch_size
    return Asked(
        model=model_name(job),
        tokens=job.sequence_length or job.max_seq_length,
        layers=job.num_hidden_layers,
        gpu=gpu_name(job),
        way=", ".join(filter(None, (*ways, f"{batch} sequences" if batch > 1 else ""))),
        query=query,
        text=yaml.safe_dump({"job": plain_values(job), **how}, sort_keys=False, allow_unicode=True),
    )


def progress_of(campaign: Mapping[str, Any]) -> Progress:
    """How many of a campaign's jobs are in which state, as a bar."""
    jobs: Mapping[str, int] = campaign["jobs"]
    total = sum(jobs.values())
    order = (State.SUCCEEDED, State.FAILED, State.EXPIRED, State.CANCELLED, State.LEASED, State.QUEUED)
    parts, before = [], 0
    for state in order:
        if count := jobs.get(state.value, 0):
            parts.append(Part(state.value, count, round(100 * before / total, 3), round(100 * count / total, 3)))
            before += count
    return Progress(tuple(parts), sum(jobs.get(state.value, 0) for state in FINAL), total)


def is_live(campaign: Mapping[str, Any]) -> bool:
    """Whether anything is still to be heard of a campaign."""
    return bool(campaign["state"] == CampaignState.MEASURING)


def workers_of(
    workers: Iterable[Mapping[str, Any]], leased: Sequence[Mapping[str, Any]], *, now: datetime, lease_seconds: int
) -> tuple[WorkerRow, ...]:
    """The workers, those that were heard of last first, each with the jobs that it holds."""
    gone = now - timedelta(seconds=SILENT_AFTER_LEASES * lease_seconds)
    rows = [
        WorkerRow(
            worker,
            datetime.fromisoformat(worker["last_seen_at"]) < gone,
            tuple(job["id"] for job in leased if job["worker"] == worker["id"]),
        )
        for worker in workers
    ]
    return tuple(sorted(rows, key=lambda row: str(row.worker["last_seen_at"]), reverse=True))


async def given_of(rows: Sequence[Mapping[str, Any]], calibration: Calibration) -> tuple[Given, ...]:
    """Measurements beside what is expected of them now; arithmetic, so in a thread."""
    return await to_thread.run_sync(lambda: tuple(_given(row, calibration) for row in rows))


def _given(row: Mapping[str, Any], calibration: Calibration) -> Given:
    from probes.fitting.asking import standing
    from probes.fitting.rows import read_row

    try:
        found = standing(read_row(row["document"], "measurement"), calibration)
    except CtxplanError:  # of another release, or of a model that only another one knows
        found = None
    measured = row["document"].get("peak_allocated_bytes")
    if found is None or not measured:
        return Given(row=row, expected_bytes=None, error=None)
    return Given(row=row, expected_bytes=round(measured / (1 + found.error)), error=found.error)
