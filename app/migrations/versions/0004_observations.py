"""What people's own training runs showed beside their plan.

Expands only: what runs on revision 0003 runs on this one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "observations",
        sa.Column("id", ID, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("drift", sa.String),
        sa.Column("seen_bytes", sa.BigInteger),
        sa.Column("expected_bytes", sa.BigInteger, nullable=False),
        sa.Column("bound_bytes", sa.BigInteger, nullable=False),
        sa.Column("calibration", sa.String(200), nullable=False),
        sa.Column("submitter", sa.String(200), nullable=False),
        sa.Column("received_at", TIME, nullable=False),
        sa.CheckConstraint("state IN ('within', 'beyond', 'unjudged')", name=op.f("ck_observations_state")),
        sa.CheckConstraint("(state = 'beyond') = (drift IS NOT NULL)", name=op.f("ck_observations_drift")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_observations")),
        sa.UniqueConstraint("digest", name=op.f("uq_observations_digest")),
    )
    op.create_index("ix_observations_state_id", "observations", ["state", "id"])
