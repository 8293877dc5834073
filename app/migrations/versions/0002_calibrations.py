"""Calibrations, their activations, API keys; a campaign names the calibration that was fitted to it.

Expands only: what runs on revision 0001 runs on this one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "calibrations",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("source", sa.String(200), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calibrations")),
    )
    op.create_table(
        "activations",
        sa.Column("seq", ID, nullable=False),
        sa.Column("calibration_id", sa.String(64), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("why", sa.String, nullable=False),
        sa.ForeignKeyConstraint(
            ["calibration_id"], ["calibrations.id"], name=op.f("fk_activations_calibration_id_calibrations")
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_activations")),
    )
    with op.batch_alter_table("campaigns") as campaigns:
        campaigns.add_column(sa.Column("calibration_id", sa.String(64)))
        campaigns.create_foreign_key(
            op.f("fk_campaigns_calibration_id_calibrations"), "calibrations", ["calibration_id"], ["id"]
        )
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(32), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("prefix", sa.String(32), nullable=False),
        sa.Column("hmac", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("last_used_at", TIME),
        sa.Column("expires_at", TIME),
        sa.Column("revoked_at", TIME),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("prefix", name=op.f("uq_api_keys_prefix")),
    )
