"""The tables as statements use them, and what several statements share."""

from __future__ import annotations

from typing import Any, cast

from sqlalchemy import ColumnElement, Table, and_, bindparam, literal_column
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


def insert_new(connection: AsyncConnection, table: Table) -> Any:
    """An INSERT with ``on_conflict_do_nothing`` and ``on_conflict_do_update``: the two databases' own constructs."""
    return sqlite.insert(table) if connection.dialect.name == "sqlite" else postgresql.insert(table)
