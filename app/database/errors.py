"""What can be wrong with the database before anything is asked of it.

CtxplanError
└── DatabaseError
    ├── InvalidDatabaseUrl    a URL that names no database this service keeps its data in
    └── MigrationFailed       a schema that could not be brought to this release's
"""

from __future__ import annotations

from estimator.errors import CtxplanError


class DatabaseError(CtxplanError):
    """The database cannot be used."""

    code = "database-error"


class InvalidDatabaseUrl(DatabaseError):
    """A URL that names no database this service keeps its data in. No message repeats it: it may hold a password."""

    code = "invalid-database-url"


class MigrationFailed(DatabaseError):
    """The schema could not be brought to this release's; it is as it was before."""

    code = "migration-failed"
