"""Calibrations in the database that replicas share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from functools import partial
from threading import Thread

import pytest
from sqlalchemy import create_engine, text

from app.calibration_database import DatabaseStore
from app.calibration_schemas import DriftFinding
from app.calibrations import open_calibrations, store_of
from app.database import Database
from app.jobs.measurements import Imported, take_in
from app.logs import make_logger
from app.metrics import Metrics
from app.settings import Settings
from app.turns import Turns
from ctxplan import Planner
from ctxplan.calibration_keeping import SHIPPED, NothingToRollBack, StoreUnavailable, UnknownCalibration
from ctxplan.calibration_store import FileStore, timestamp
from ctxplan.calibrations import shipped
from estimator.errors import CalibrationError
from probes.points import parse_point
from tests.app.measuring import POINT
from tests.ctxplan.test_calibration_store import NOW, made
from tests.probes.documents import believable


@pytest.fixture
def store(database: Database, database_url: str) -> Iterator[DatabaseStore]:
    store = DatabaseStore(database_url)
    yield store
    store.dispose()


@pytest.fixture
def replica(database: Database, database_url: str) -> Iterator[DatabaseStore]:
    store = DatabaseStore(database_url)
    yield store
    store.dispose()


async def test_the_shipped_one_answers_until_another_is_activated_by_any_replica(
    store: DatabaseStore, replica: DatabaseStore
) -> None:
    own = made(1)
    assert replica.active() == shipped()
    assert store.put(own)
    assert not replica.put(own)
    assert replica.get(own.id[7:15]) == own
    activation = store.activate(own.id[7:15], why="better", at=NOW)
    assert activation.id == own.id
    assert replica.active() == own
    assert replica.history() == (activation,)


async def test_rollbacks_go_back_as_those_of_a_directory_do(store: DatabaseStore) -> None:
    one, two = made(1), made(2)
    for number, calibration in enumerate((one, two)):
        store.put(calibration)
        store.activate(calibration.id, why="new", at=NOW + timedelta(seconds=number))
    assert store.rollback(why="worse", at=NOW).id == one.id
    assert store.rollback(why="worse", at=NOW).id == SHIPPED
    assert store.active() == shipped()
    with pytest.raises(NothingToRollBack):
        store.rollback(why="worse", at=NOW)
    assert store.activate(SHIPPED, why="again", at=NOW).id == SHIPPED
    assert [one.id for one in store.history()] == [one.id, two.id, one.id, SHIPPED, SHIPPED]


async def test_they_are_listed_newest_first_and_the_shipped_one_last(store: DatabaseStore) -> None:
    store.activate(SHIPPED, why="a row of its own", at=NOW)
    ids = [made(number).id for number in range(3)]
    for number in range(3):
        store.put(made(number))
    assert [one.id for one in store.list()] == [*ids[::-1], shipped().id]


async def test_an_id_that_is_none_or_of_several_is_named(store: DatabaseStore) -> None:
    for id in ("", "abc", "zzzz", "sha256-", "0" * 65, "ffff"):
        with pytest.raises(UnknownCalibration):
            store.get(id)
    assert store.get(shipped().id) == shipped() == store.get(shipped().id[7:20]) == store.get(SHIPPED)
    assert not store.put(shipped())


async def test_a_document_that_was_changed_answers_nothing_and_can_be_put_again(
    store: DatabaseStore, database_url: str
) -> None:
    own = made(1)
    store.put(own)
    store.activate(own.id, why="new", at=NOW)
    engine = create_engine(database_url.replace("+aiosqlite", ""))
    with engine.begin() as connection:
        connection.execute(text('UPDATE calibrations SET document = \'{"id": "x"}\''))
    engine.dispose()
    with pytest.raises(CalibrationError, match=own.id):
        store.active()
    assert store.list()[0].fault is not None
    with pytest.raises(CalibrationError):
        store.activate(own.id, why="again", at=NOW)
    assert store.put(own)
    assert store.active() == own


async def test_the_rows_of_a_calibration_are_kept_with_it(store: DatabaseStore) -> None:
    one, two = made(1), made(2)
    for number, calibration in enumerate((one, two)):
        store.put(calibration)
        store.keep_measurements(calibration.id, [{"row": 0}])
        store.keep_measurements(calibration.id, [{"row": number}, {"row": 9}])
    store.keep_measurements(shipped().id, [{"row": 5}])
    assert store.measurements(two.id) == [{"row": 1}, {"row": 9}]
    assert len(store.measurements()) == 4


async def test_replicas_that_roll_back_at_once_each_take_a_step(store: DatabaseStore, replica: DatabaseStore) -> None:
    for number in range(4):
        store.put(made(number))
        store.activate(made(number).id, why="new", at=NOW)
    threads = [Thread(target=lambda one=one: one.rollback(why="both", at=NOW)) for one in (store, replica)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.active() == made(1)


async def taken_in(database: Database, at: datetime, *, times: float, quarantine: str | None = None) -> str:
    """Keep a measurement whose peak is so many times what is expected; the digest of its point."""
    point = parse_point(POINT)
    document = believable(point, times=times, measured_at=at.isoformat()).model_dump(mode="json")
    one = Imported(point=point.to_json(), gpu="H100-80GB", document=document, quarantine=quarantine)
    async with database.write() as connection:
        await take_in(connection, one, at, token=str(at))
    return str(document["point"])


async def test_drift_is_what_was_measured_beyond_the_bound_of_a_calibration(
    store: DatabaseStore, database: Database
) -> None:
    assert store.drift() == ()
    await taken_in(database, NOW, times=1.0)
    await taken_in(database, NOW + timedelta(hours=1), times=1.3, quarantine="not to be believed")
    assert store.drift() == store.drift(shipped().id) == ()
    point = await taken_in(database, NOW + timedelta(hours=2), times=1.08)
    (found,) = store.drift(shipped().id)
    assert (found["calibration"], found["side"], found["points"]) == (shipped().id, "above", 1)
    assert (found["beyond"], found["at"]) == ([point], timestamp(NOW + timedelta(hours=2)))
    assert found["bound"] < found["error"] == pytest.approx(0.08, abs=1e-6)
    DriftFinding.model_validate(found)
    await taken_in(database, NOW + timedelta(hours=3), times=1.001)
    assert store.drift() == (), "the newest of a point counts"


async def test_drift_is_judged_again_only_where_another_measurement_or_calibration_is_there(
    store: DatabaseStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[int] = []

    def find(rows: Sequence[object], _: object) -> list[object]:
        judged.append(len(rows))
        return []

    monkeypatch.setattr("probes.fitting.drift.find_drift", find)
    store.put(made(1))
    for number in range(3):
        await taken_in(database, NOW + timedelta(seconds=number), times=1 + number / 1000)
    for _ in range(2):
        store.drift(shipped().id)
    assert judged == [3]
    store.drift(made(1).id)
    monkeypatch.setattr("app.measured_drift.MOST_MEASUREMENTS", 2)
    store.drift(made(1).id)
    assert judged == [3, 3, 2]


async def test_the_drift_of_the_active_one_is_counted_and_shown(
    store: DatabaseStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.calibrations.store_of", lambda _: store)
    metrics, log = Metrics(), make_logger("error")
    turns = partial(Turns, max_waiting=1, metrics=metrics, log=log)
    planner = Planner(offline=True)
    calibrations = open_calibrations(Settings(), planner, metrics=metrics, log=log, turns=turns)
    assert "ctxplan_calibration_drift 0.0" in metrics.text().decode()
    point = await taken_in(database, NOW, times=1.08)
    calibrations.refresh()
    assert "ctxplan_calibration_drift 1.0" in metrics.text().decode()
    (found,) = (await calibrations.active())["drift"]
    assert found["beyond"] == [point]


def test_a_database_that_is_not_there_is_unavailable_and_its_password_is_not_told(tmp_path: object) -> None:
    for url in (f"sqlite:///{tmp_path}/missing/x.db", f"postgresql://me:secret@/x?host={tmp_path}"):
        store = DatabaseStore(url)
        with pytest.raises(StoreUnavailable) as refused:
            store.active()
        assert "secret" not in str(refused.value)
        store.dispose()


def test_replicas_share_their_calibrations_and_one_machine_shares_them_with_its_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.delenv("CTXPLAN_CALIBRATIONS")
    assert isinstance(store_of(Settings(database_url="postgresql://x/y")), DatabaseStore)
    assert isinstance(store_of(Settings(database_url="sqlite:///x.db")), FileStore)
    monkeypatch.setenv("CTXPLAN_CALIBRATIONS", str(tmp_path))
    assert isinstance(store_of(Settings(database_url="postgresql://x/y")), FileStore)
