"""What Alembic runs: the migrations, within the transaction and under the lock of `app.database.migrate`."""

from __future__ import annotations

from alembic import context

from app.database.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,  # SQLite changes a table only by making it anew
)
with context.begin_transaction():
    context.run_migrations()
