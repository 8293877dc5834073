"""The queue of probe jobs: campaigns, jobs, their history, what they gave, and who works on them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    _requests()
    _jobs()
    _results()
    op.create_table(
        "workers",
        sa.Column("id", sa.String(200), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("gpu", sa.String(200), nullable=False),
        sa.Column("total_bytes", sa.BigInteger, nullable=False),
        sa.Column("versions", sa.JSON, nullable=False),
        sa.Column("last_seen_at", TIME, nullable=False),
        sa.Column("draining", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )


def _requests() -> None:
    op.create_table(
        "campaigns",
        sa.Column("id", ID, nullable=False),
        sa.Column("model", sa.String(400), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("points", sa.Integer, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("finished_at", TIME),
        sa.CheckConstraint("state IN ('measuring', 'done', 'failed', 'cancelled')", name=op.f("ck_campaigns_state")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_campaigns")),
    )
    op.create_table(
        "submissions",
        sa.Column("id", ID, nullable=False),
        sa.Column("submitter", sa.String(200), nullable=False),
        sa.Column("idempotency_key", sa.String(200)),
        sa.Column("body_digest", sa.String(64), nullable=False),
        sa.Column("campaign_id", ID),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name=op.f("fk_submissions_campaign_id_campaigns")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_submissions")),
        sa.UniqueConstraint("submitter", "idempotency_key", name=op.f("uq_submissions_submitter_idempotency_key")),
    )
    op.create_table(
        "requirements",
        sa.Column("id", ID, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("gpu", sa.String(200)),
        sa.Column("versions", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_requirements")),
        sa.UniqueConstraint("digest", name=op.f("uq_requirements_digest")),
    )
    op.create_index(op.f("ix_requirements_gpu"), "requirements", ["gpu"])


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", ID, nullable=False),
        sa.Column("submission_id", ID, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("campaign_id", ID),
        sa.Column("point", sa.JSON, nullable=False),
        sa.Column("point_digest", sa.String(64), nullable=False),
        sa.Column("requirement_id", ID, nullable=False),
        sa.Column("min_total_bytes", sa.BigInteger, nullable=False),
        sa.Column("priority", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("max_attempts", sa.Integer, nullable=False),
        sa.Column("losses", sa.Integer, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("last_seq", sa.Integer, nullable=False),
        sa.Column("failures", sa.JSON, nullable=False),
        sa.Column("lease_token_hash", sa.String(64)),
        sa.Column("lease_worker", sa.String(200)),
        sa.Column("lease_seconds", sa.Integer),
        sa.Column("leased_at", TIME),
        sa.Column("lease_renewed_at", TIME),
        sa.Column("lease_expires_at", TIME),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME),
        sa.Column("finished_at", TIME),
        sa.CheckConstraint(
            "state IN ('queued', 'leased', 'succeeded', 'failed', 'cancelled', 'expired')", name=op.f("ck_jobs_state")
        ),
        sa.CheckConstraint(
            "(state = 'leased') = (lease_expires_at IS NOT NULL)"
            " AND (state <> 'leased' OR (lease_token_hash IS NOT NULL AND lease_worker IS NOT NULL))",
            name=op.f("ck_jobs_lease"),
        ),
        sa.ForeignKeyConstraint(["submission_id"], ["submissions.id"], name=op.f("fk_jobs_submission_id_submissions")),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name=op.f("fk_jobs_campaign_id_campaigns")),
        sa.ForeignKeyConstraint(
            ["requirement_id"], ["requirements.id"], name=op.f("fk_jobs_requirement_id_requirements")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
    )
    _indexes_of_jobs()


def _indexes_of_jobs() -> None:
    op.create_index("uq_jobs_submission_id_position", "jobs", ["submission_id", "position"], unique=True)
    op.create_index(op.f("ix_jobs_point_digest"), "jobs", ["point_digest"])
    op.create_index("ix_jobs_state_id", "jobs", ["state", "id"])
    op.create_index("ix_jobs_campaign_id_id", "jobs", ["campaign_id", "id"])
    _partial("ix_jobs_claim", "queued", "requirement_id", "priority DESC", "id", "min_total_bytes")
    _partial("ix_jobs_lease_expires_at", "leased", "state", "lease_expires_at", "lease_renewed_at")
    _partial("ix_jobs_expires_at", "queued", "state", "expires_at")


def _partial(name: str, state: str, *columns: str) -> None:
    where = sa.text(f"state = '{state}'")
    parts = [sa.text(column) if " " in column else column for column in columns]
    op.create_index(name, "jobs", parts, sqlite_where=where, postgresql_where=where)


def _results() -> None:
    op.create_table(
        "job_events",
        sa.Column("job_id", ID, nullable=False),
        sa.Column("seq", sa.Integer, nullable=False, autoincrement=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("worker", sa.String(200)),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_job_events_job_id_jobs")),
        sa.PrimaryKeyConstraint("job_id", "seq", name=op.f("pk_job_events")),
    )
    op.create_table(
        "measurements",
        sa.Column("id", ID, nullable=False),
        sa.Column("point_digest", sa.String(64), nullable=False),
        sa.Column("job_id", ID, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("document_digest", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("quarantine_reason", sa.String),
        sa.Column("received_at", TIME, nullable=False),
        sa.CheckConstraint("state IN ('accepted', 'quarantined')", name=op.f("ck_measurements_state")),
        sa.CheckConstraint(
            "(state = 'quarantined') = (quarantine_reason IS NOT NULL)", name=op.f("ck_measurements_quarantine")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_measurements_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_measurements")),
        sa.UniqueConstraint("job_id", name=op.f("uq_measurements_job_id")),
    )
    op.create_index(op.f("ix_measurements_point_digest"), "measurements", ["point_digest"])
    op.create_index("ix_measurements_state_id", "measurements", ["state", "id"])
    op.create_table(
        "late_results",
        sa.Column("id", ID, nullable=False),
        sa.Column("job_id", ID, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("worker", sa.String(200), nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("received_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_late_results_job_id_jobs")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_late_results")),
        sa.UniqueConstraint("job_id", "epoch", name=op.f("uq_late_results_job_id_epoch")),
    )
