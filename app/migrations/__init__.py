"""The schema's history. `app.database.migrate` runs it; nothing else does."""
