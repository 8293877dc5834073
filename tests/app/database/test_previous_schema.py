"""What the release before this one has kept is there after the upgrade, all of it, and read by today's code."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from app.calibration_database import DatabaseStore
from app.database import Database, Migrated, migrate
from app.database.migrate import MIGRATIONS
from app.jobs import campaigns
from app.jobs.measurements import accepted_documents
from app.keys.form import checksum
from app.keys.store import KeyStore
from app.observations.store import list_observations
from app.queue import CampaignState, JobStore, State
from app.queue.audit import audit
from estimator.calibration.document import calibration_to_json
from tests.app.database.test_migrations import AT, HEAD, insert_rows_of_the_first
from tests.ctxplan.test_calibration_store import made

PREVIOUS = "0004"
SECRET = b"s" * 40
BODY = "ctxp_" + "aB3" * 12 + "x"
KEY = BODY + checksum(BODY)
CALIBRATION = made(1)
ROW, SEEN = {"outcome": "ok", "point": "p"}, {"run": "r", "outcome": "ok"}
OUTCOME = {"calibration": CALIBRATION.id, "points": 2, "better": True, "activated": True, "errors": {}, "why": "new"}
LATE = {"late_result": 1}
ROWS: list[tuple[str, dict[str, Any]]] = [
    ("calibrations", {"id": CALIBRATION.id[7:], "document": calibration_to_json(CALIBRATION), "source": "campaign"}),
    ("activations", {"calibration_id": CALIBRATION.id[7:], "why": "campaign 9: new"}),
    ("calibration_rows", {"calibration_id": CALIBRATION.id[7:], "documents": [ROW]}),
    ("campaigns", {"id": 9, "model": "b/model", "state": "done", "points": 0, "calibration_id": CALIBRATION.id[7:]}),
    ("campaign_fits", {"campaign_id": 9, "activate": "always", "outcome": OUTCOME}),
    ("campaign_fits", {"campaign_id": 7, "activate": "if_better", "outcome": None}),
    (
        "api_keys",
        {
            "id": "k1",
            "name": "laptop",
            "prefix": KEY[:13],
            "hmac": hmac.new(SECRET, KEY.encode(), hashlib.sha256).hexdigest(),
            "scopes": ["plan", "measure"],
        },
    ),
    (
        "api_keys",
        {"id": "k2", "name": "old", "prefix": "ctxp_old", "hmac": "0" * 64, "scopes": ["work"], "revoked_at": AT},
    ),
    ("observations", {"id": 1, "digest": "d1", "document": SEEN, "state": "within", "seen_bytes": 2**40}),
    ("observations", {"id": 2, "digest": "d2", "document": SEEN, "state": "beyond", "drift": "5 GiB more"}),
    ("late_results", {"id": 1, "job_id": 8, "epoch": 1, "worker": "w", "document": ROW}),
    ("job_events", {"job_id": 8, "seq": 4, "kind": "late_result", "epoch": 1, "worker": "w", "detail": LATE}),
    (
        "workers",
        {"id": "w", "name": "a", "gpu": "g", "total_bytes": 2**36, "versions": {"torch": "2.11.0"}, "draining": False},
    ),
]
OF_TABLE: dict[str, dict[str, Any]] = {
    "observations": {"expected_bytes": 1, "bound_bytes": 2, "calibration": CALIBRATION.id, "submitter": "me"},
    "campaigns": {"finished_at": AT},
}
TIMES = {
    "activations": "at",
    "job_events": "at",
    "late_results": "received_at",
    "observations": "received_at",
    "workers": "last_seen_at",
}
WITHOUT_TIME = {"calibration_rows", "campaign_fits"}


async def insert_rows_of_the_previous(database: Database) -> None:
    """As that release wrote them, and its tables have them: in SQL, without a word of today's models."""
    await insert_rows_of_the_first(database)
    async with database.write() as connection:
        for table, given in ROWS:
            time = {} if table in WITHOUT_TIME else {TIMES.get(table, "created_at"): AT}
            row = {**given, **OF_TABLE.get(table, {}), **time}
            values = {key: json.dumps(one) if isinstance(one, dict | list) else one for key, one in row.items()}
            names = ", ".join(values)
            places = ", ".join(f":{name}" for name in values)
            await connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({places})"), values)  # noqa: S608
        await connection.execute(text("UPDATE jobs SET last_seq = 4 WHERE id = 8"))


def contents(connection: Connection) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table."""
    names = [name for name in inspect(connection).get_table_names() if name != "alembic_version"]
    return {
        name: sorted(
            (dict(row) for row in connection.execute(text(f"SELECT * FROM {name}")).mappings()),  # noqa: S608
            key=str,
        )
        for name in names
    }


def script() -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return ScriptDirectory.from_config(config)


def test_it_is_the_one_before_the_head() -> None:
    revision = script().get_revision(HEAD)
    assert (script().get_current_head(), revision.down_revision) == (HEAD, PREVIOUS)


async def test_every_row_of_the_previous_schema_is_still_there_with_all_that_it_held(empty_url: str) -> None:
    database = Database(empty_url)
    try:
        assert (await migrate(database, to=PREVIOUS)).after == PREVIOUS
        await insert_rows_of_the_previous(database)
        async with database.read() as connection:
            before = await connection.run_sync(contents)
        assert [name for name, rows in before.items() if not rows] == [], "a table of which nothing is seen"
        assert await migrate(database) == Migrated(before=PREVIOUS, after=HEAD)
        async with database.read() as connection:
            after = await connection.run_sync(contents)
        for name, rows in before.items():
            columns = rows[0].keys()
            kept = [{column: row[column] for column in columns} for row in after[name]]
            assert sorted(kept, key=str) == rows, name
    finally:
        await database.dispose()


async def test_and_is_read_by_the_code_of_today(empty_url: str) -> None:
    database, store = Database(empty_url), DatabaseStore(empty_url)
    try:
        await migrate(database, to=PREVIOUS)
        await insert_rows_of_the_previous(database)
        await migrate(database)
        keys = KeyStore(database, secret=SECRET, clock=lambda: datetime(2026, 3, 2, tzinfo=UTC))
        found = await keys.find(KEY)
        assert found is not None
        assert (found.name, found.scopes, found.created_at) == ("laptop", ("plan", "measure"), moment())
        assert [(one.id, one.is_valid(moment())) for one in await keys.list()] == [("k1", True), ("k2", False)]
        assert store.active() == CALIBRATION
        assert [(one.id, one.why) for one in store.history()] == [(CALIBRATION.id, "campaign 9: new")]
        assert store.measurements(CALIBRATION.id) == [ROW]
        async with database.read() as connection:
            fitted, open_one = await campaigns.get(connection, 9), await campaigns.get(connection, 7)
            seen = (await list_observations(connection, state=None, limit=9, cursor=None)).items
            assert await accepted_documents(connection) == ({"outcome": "ok"},)
            assert await campaigns.due(connection) == []
        assert (fitted.view.state, fitted.outcome, fitted.attempts) == (CampaignState.DONE, OUTCOME, 0)
        assert (open_one.view.state, open_one.outcome, open_one.attempts) == (CampaignState.MEASURING, None, 0)
        assert [(one.id, one.drift, one.seen_bytes) for one in seen] == [(2, "5 GiB more", None), (1, None, 2**40)]
        assert (await JobStore(database).get(8)).state is State.SUCCEEDED
        assert (await audit(database)).findings == ()
        async with database.write() as connection:
            assert await campaigns.count_attempt(connection, 7, seen=0)
    finally:
        store.dispose()
        await database.dispose()


def moment() -> datetime:
    return datetime.fromisoformat(AT)
