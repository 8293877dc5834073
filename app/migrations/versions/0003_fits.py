"""How a campaign is to end and how it did; the measurements that a calibration was fitted to.

Expands only: what runs on revision 0002 runs on this one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "campaign_fits",
        sa.Column("campaign_id", ID, nullable=False, autoincrement=False),
        sa.Column("activate", sa.String(16), nullable=False),
        sa.Column("outcome", sa.JSON),
        sa.ForeignKeyConstraint(["campaign_id"], ["campaigns.id"], name=op.f("fk_campaign_fits_campaign_id_campaigns")),
        sa.PrimaryKeyConstraint("campaign_id", name=op.f("pk_campaign_fits")),
    )
    op.create_table(
        "calibration_rows",
        sa.Column("calibration_id", sa.String(64), nullable=False),
        sa.Column("documents", sa.JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["calibration_id"], ["calibrations.id"], name=op.f("fk_calibration_rows_calibration_id_calibrations")
        ),
        sa.PrimaryKeyConstraint("calibration_id", name=op.f("pk_calibration_rows")),
    )
