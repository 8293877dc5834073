"""The tables as statements use them, and what several statements share."""

from __future__ import annotations

from datetime import datetime
from typing import Any, cast

from sqlalchemy import ColumnElement, Table, and_, bindparam, case, literal_column, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from app.database.base import UtcDateTime
from app.database.models import (
    CampaignModel,
    JobEventModel,
    JobModel,
    LateResultModel,
    MeasurementModel,
    RequirementModel,
    SubmissionModel,
    WorkerModel,
)
from app.queue.states import QUEUING

CAMPAIGNS = cast(Table, CampaignModel.__table__)
EVENTS = cast(Table, JobEventModel.__table__)
JOBS = cast(Table, JobModel.__table__)
LATE_RESULTS = cast(Table, LateResultModel.__table__)
MEASUREMENTS = cast(Table, MeasurementModel.__table__)
REQUIREMENTS = cast(Table, RequirementModel.__table__)
SUBMISSIONS = cast(Table, SubmissionModel.__table__)
WORKERS = cast(Table, WorkerModel.__table__)

# Literals and not parameters: without the value at hand, neither database may use an index of one state's jobs alone.
QUEUED: ColumnElement[str] = literal_column("'queued'")
LEASED: ColumnElement[str] = literal_column("'leased'")

NOW = bindparam("now", type_=UtcDateTime())

HELD = and_(
    JOBS.c.id == bindparam("held_job_id"),
    JOBS.c.state == LEASED,
    JOBS.c.lease_token_hash == bindparam("held_token_hash"),
    JOBS.c.epoch == bindparam("held_epoch"),
    JOBS.c.lease_expires_at > NOW,
)
"""The one condition under which a worker has a job. Its parameters are `app.queue.leases.held`'s, and ``now``."""


_BECAME_QUEUED = (
    select(EVENTS.c.at)
    .where(EVENTS.c.job_id == JOBS.c.id, EVENTS.c.kind.in_(QUEUING))
    .order_by(EVENTS.c.seq.desc())
    .limit(1)
    .correlate(JOBS)
    .scalar_subquery()
)
QUEUED_SINCE: ColumnElement[datetime] = case((JOBS.c.last_seq == 1, JOBS.c.created_at), else_=_BECAME_QUEUED)
"""Since when a queued job waits: its submission, or the end of its last lease, or its last retry. Most jobs have no
history yet, and are looked up nowhere."""


def insert_new(connection: AsyncConnection, table: Table) -> Any:
    """An INSERT with ``on_conflict_do_nothing`` and ``on_conflict_do_update``: the two databases' own constructs."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
