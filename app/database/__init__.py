"""Where what must outlive the process is kept: SQLite by default, PostgreSQL for several replicas of the service."""

from app.database.engine import Database
from app.database.errors import DatabaseError, InvalidDatabaseUrl, MigrationFailed
from app.database.migrate import Migrated, migrate

__all__ = ["Database", "DatabaseError", "InvalidDatabaseUrl", "Migrated", "MigrationFailed", "migrate"]
