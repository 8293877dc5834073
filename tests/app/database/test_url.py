from __future__ import annotations

import sys

import pytest

from app.database import Database, InvalidDatabaseUrl
from app.database.url import read_url
from app.settings import Settings


def test_the_default_is_a_sqlite_file_beside_the_service() -> None:
    url = read_url(Settings.model_fields["database_url"].default)
    assert (url.drivername, url.database) == ("sqlite+aiosqlite", "ctxplan.db")


@pytest.mark.parametrize(
    ("written", "driver"),
    [
        ("sqlite:////var/lib/ctxplan.db", "sqlite+aiosqlite"),
        ("postgres://me@host/plans", "postgresql+psycopg"),
        ("postgresql://me@host/plans", "postgresql+psycopg"),
        ("postgresql+psycopg://me@host/plans", "postgresql+psycopg"),
    ],
)
def test_a_url_without_a_driver_is_given_the_one_that_serves_it(written: str, driver: str) -> None:
    assert read_url(written).drivername == driver


@pytest.mark.parametrize(
    "written",
    [
        "",
        "ctxplan.db",
        "mysql://me:secret@host/plans",
        "postgresql+asyncpg://me:secret@host/plans",
        "postgresql://me:secret@host:port/plans",
        "sqlite://",
        "sqlite+aiosqlite:///:memory:",
        "sqlite:///file:plans?mode=memory&uri=true",
    ],
)
def test_what_names_no_database_is_refused_by_name_and_without_its_password(written: str) -> None:
    with pytest.raises(InvalidDatabaseUrl) as refused:
        Database(written)
    assert refused.value.key == "CTXPLAN_DATABASE_URL"
    assert refused.value.allowed is not None
    assert "secret" not in str(refused.value)


def test_a_database_whose_driver_is_missing_is_refused_with_the_extra_that_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(InvalidDatabaseUrl, match=r"ctxplan\[postgres\]"):
        Database("postgresql://me@host/plans")
