"""How often a campaign's fit has failed.

Expands only: what runs on revision 0004 runs on this one.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("campaign_fits", sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")))
