"""Calibrations in the database of several replicas: what one of them activates, all of them answer with.

A `CalibrationStore` as the directory is one (`ctxplan.calibration_store`), with connections of its own that wait: it is
called in threads. The release's own calibration is in no table; an activation of it names a row without a document.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

from sqlalchemy import Connection, Row, Table, create_engine, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from app.database.models import ActivationModel, CalibrationModel, CalibrationRowsModel
from app.database.url import read_url
from app.measured_drift import MeasuredDrift
from ctxplan.calibration_keeping import (
    SHIPPED,
    Activation,
    NothingToRollBack,
    Stored,
    StoreUnavailable,
    UnknownCalibration,
)
from ctxplan.calibration_store import LEAST_DIGITS, PREFIX, before_active, timestamp
from ctxplan.calibrations import shipped
from estimator.calibration.document import Calibration, calibration_to_json, read_calibration
from estimator.errors import CalibrationError
from estimator.rules import shown

CALIBRATIONS = cast(Table, CalibrationModel.__table__)
ACTIVATIONS = cast(Table, ActivationModel.__table__)
ROWS = cast(Table, CalibrationRowsModel.__table__)
LOCK = 0x63747870_63616C69
"""Of PostgreSQL's advisory locks: what is read and added of the activations is one step ("ctxpcali")."""
CONNECT_SECONDS = 5


class DatabaseStore:
    """A `CalibrationStore` on the service's database, whose schema `app.database.migrate` has made.

    Every error of the database is StoreUnavailable, whose cause it is. The message says nothing of it, for clients are
    shown that, and the cause may name the database's host.
    """

    def __init__(self, url: str, *, shipped: Callable[[], Calibration] = shipped) -> None:
        parsed = read_url(url)
        self._is_sqlite = parsed.drivername.startswith("sqlite")
        # psycopg waits and awaits under one name; SQLite's own driver is the standard library's.
        driver = "sqlite" if self._is_sqlite else parsed.drivername
        arguments = {"timeout" if self._is_sqlite else "connect_timeout": CONNECT_SECONDS}
        self._engine = create_engine(
            parsed.set(drivername=driver), connect_args=arguments, pool_pre_ping=True, pool_size=2
        )
        self._shipped = shipped
        self._drift = MeasuredDrift()

    def put(self, calibration: Calibration) -> bool:
        """A document that is here under this id and is not this content is replaced by what the id promises."""
        if calibration.id == self._shipped().id:
            return False
        document = calibration_to_json(calibration)
        if document["id"] != calibration.id:
            raise CalibrationError("is not the id of this content", key="id")
        digest = calibration.id.removeprefix(PREFIX)
        with self._writing() as connection:
            kept = connection.execute(select(CALIBRATIONS.c.document).where(CALIBRATIONS.c.id == digest)).scalar()
            if kept == document:
                return False
            if kept is not None:
                changed = CALIBRATIONS.update().where(CALIBRATIONS.c.id == digest).values(document=document)
                connection.execute(changed)
                return True
            self._add(connection, digest, document, source="imported")
        return True

    def get(self, id: str) -> Calibration:
        with self._reading() as connection:
            return self._found(connection, self._find(connection, id))

    def list(self) -> Sequence[Stored]:
        with self._reading() as connection:
            query = select(CALIBRATIONS).where(CALIBRATIONS.c.id != SHIPPED)
            rows = connection.execute(query.order_by(CALIBRATIONS.c.created_at.desc(), CALIBRATIONS.c.id.desc())).all()
        calibration = self._shipped()
        own = Stored(id=calibration.id, stored_at=None, calibration=calibration)
        return (*(_stored(row) for row in rows if PREFIX + row.id != calibration.id), own)

    def activate(self, id: str, *, why: str, at: datetime) -> Activation:
        with self._writing() as connection:
            found = self._find(connection, id)
            if found != SHIPPED:
                self._read(connection, found)
            return self._activated(connection, found, why, at)

    def active(self) -> Calibration:
        with self._reading() as connection:
            history = _history(connection)
            id = history[-1].id if history else SHIPPED
            return self._found(connection, id)

    def history(self) -> Sequence[Activation]:
        with self._reading() as connection:
            return _history(connection)

    def rollback(self, *, why: str, at: datetime) -> Activation:
        with self._writing() as connection:
            before = before_active(one.id for one in _history(connection))
            if before is None:
                raise NothingToRollBack("nothing was active before in the database")
            if before != SHIPPED:
                self._read(connection, before)
            return self._activated(connection, before, why, at)

    def keep_measurements(self, id: str, documents: Iterable[Mapping[str, Any]]) -> None:
        row = {"calibration_id": id.removeprefix(PREFIX), "documents": [dict(one) for one in documents]}
        with self._writing() as connection:
            found = connection.execute(select(CALIBRATIONS.c.id).where(CALIBRATIONS.c.id == row["calibration_id"]))
            if found.scalar() is None:  # the shipped one, whose rows are the release's
                return
            adding = self._insert(ROWS).values(**row)
            connection.execute(
                adding.on_conflict_do_update(
                    index_elements=["calibration_id"], set_={"documents": adding.excluded.documents}
                )
            )

    def measurements(self, *ids: str) -> Sequence[dict[str, Any]]:
        query = select(ROWS.c.documents).order_by(ROWS.c.calibration_id)
        if ids:
            query = query.where(ROWS.c.calibration_id.in_([id.removeprefix(PREFIX) for id in ids]))
        with self._reading() as connection:
            return [one for documents in connection.execute(query).scalars() for one in documents]

    def drift(self, calibration: str | None = None) -> Sequence[dict[str, Any]]:
        """What the queue has measured beyond the bound of a calibration, by default of the active one. It is noted
        nowhere: the measurements are here, and it is found in them."""
        id = self.active().id if calibration is None else calibration
        with self._reading() as connection:
            found = self._find(connection, id)
            return self._drift.of(connection, found, partial(self._found, connection, found))

    def dispose(self) -> None:
        """Close every connection."""
        self._engine.dispose()

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise StoreUnavailable("the database of calibrations cannot be read") from error

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction in which nobody else adds an activation."""
        try:
            with self._engine.begin() as connection:
                if self._is_sqlite:
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                else:
                    connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
                yield connection
        except SQLAlchemyError as error:
            raise StoreUnavailable("the database of calibrations cannot be written") from error

    def _found(self, connection: Connection, found: str) -> Calibration:
        return self._shipped() if found == SHIPPED else self._read(connection, found)

    def _find(self, connection: Connection, id: str) -> str:
        """The whole id that an abbreviation stands for, or ``shipped``. Raises UnknownCalibration."""
        if id == SHIPPED:
            return id
        allowed = f"the first {LEAST_DIGITS} or more digits of an id that is listed, or {SHIPPED}"
        digits = id.removeprefix(PREFIX)
        if not LEAST_DIGITS <= len(digits) <= 64 or set(digits) - set("0123456789abcdef"):
            raise UnknownCalibration(f"{shown(id)} is no id of a calibration", key="id", allowed=allowed)
        starting = select(CALIBRATIONS.c.id).where(CALIBRATIONS.c.id.startswith(digits))
        known: dict[str, str] = {PREFIX + name: PREFIX + name for name in connection.execute(starting).scalars()}
        if self._shipped().id.startswith(PREFIX + digits):
            known[self._shipped().id] = SHIPPED
        if len(known) != 1:
            what = f"begins the ids of {len(known)}" if known else "is no calibration here"
            raise UnknownCalibration(f"{shown(id)} {what}", key="id", allowed=allowed)
        (found,) = known.values()
        return found

    def _read(self, connection: Connection, id: str) -> Calibration:
        query = select(CALIBRATIONS.c.document).where(CALIBRATIONS.c.id == id.removeprefix(PREFIX))
        document = connection.execute(query).scalar()
        if document is None:
            raise CalibrationError(f"{id}: the calibration is gone from the database", key="calibration")
        return _checked(id, document)

    def _activated(self, connection: Connection, id: str, why: str, at: datetime) -> Activation:
        digest = id.removeprefix(PREFIX)
        if id == SHIPPED:
            self._add(connection, SHIPPED, {}, source="shipped", at=at)
        connection.execute(ACTIVATIONS.insert().values(calibration_id=digest, at=at, why=why))
        return Activation(at=timestamp(at), id=id, why=why)

    def _add(
        self, connection: Connection, digest: str, document: Mapping[str, Any], *, source: str, at: Any = None
    ) -> None:
        values = {"id": digest, "document": dict(document), "source": source, "created_at": at or _now()}
        connection.execute(self._insert(CALIBRATIONS).values(**values).on_conflict_do_nothing(index_elements=["id"]))

    def _insert(self, table: Table) -> Any:
        return sqlite.insert(table) if self._is_sqlite else postgresql.insert(table)


def _history(connection: Connection) -> tuple[Activation, ...]:
    rows = connection.execute(select(ACTIVATIONS).order_by(ACTIVATIONS.c.seq))
    return tuple(
        Activation(
            at=timestamp(row.at),
            id=SHIPPED if row.calibration_id == SHIPPED else PREFIX + row.calibration_id,
            why=row.why,
        )
        for row in rows
    )


def _stored(row: Row[Any]) -> Stored:
    id = PREFIX + row.id
    try:
        return Stored(id=id, stored_at=row.created_at, calibration=_checked(id, row.document))
    except CalibrationError as error:
        return Stored(id=id, stored_at=row.created_at, calibration=None, fault=str(error))


def with_cause(error: Exception) -> str:
    """For the log: what an error says in its first line, and what its cause does."""
    cause = error.__cause__
    said = [str(one).strip().splitlines() for one in (error, getattr(cause, "orig", None) or cause) if one is not None]
    return ": ".join(lines[0] for lines in said if lines)


def _checked(id: str, document: Any) -> Calibration:
    """The calibration of a document. Raises CalibrationError where it is not what its id says."""
    try:
        calibration = read_calibration(document)
    except CalibrationError as error:
        raise CalibrationError(f"{id}: {error}") from None
    if calibration.id != id:
        raise CalibrationError(f"{id}: is the document of {calibration.id}")
    return calibration


def _now() -> datetime:
    return datetime.now(UTC)
