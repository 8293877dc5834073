"""Calibrations of the service: fitted in a process of their own, one at a time; the active one is what every answer is
made with."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from anyio import to_thread

from app.calibration_database import DatabaseStore, with_cause
from app.database.url import read_url
from app.jobs.fitting_process import fit_rows_apart
from app.metrics import Metrics
from app.settings import Settings
from app.turns import TurnsOf
from ctxplan import Planner
from ctxplan.calibration_keeping import SHIPPED, Activation, CalibrationStore, Stored, StoreUnavailable
from ctxplan.calibration_store import FileStore, timestamp
from ctxplan.calibration_summary import listed, summary
from estimator.calibration.document import Calibration
from estimator.errors import ArchitectureError, CtxplanError, UnknownModel
from estimator.rules import Names, Rule, Text, parse_object, shown

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

MAX_MEASUREMENTS = 2000
MAX_WHY = 500


class InvalidMeasurements(CtxplanError):
    """The body of a calibration's request is not one; the key names the part."""

    code = "invalid-evidence"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A calibration that was fitted: its summary, and whether it is new here."""

    document: dict[str, Any]
    new: bool


class Calibrations:
    """What the routes ask about calibrations.

    Args:
        planner: the service's own, whose calibration follows the active one. models: says which models a measurement
            may name: none that a request may not. allowed: whether a request may fit and activate.
    """

    def __init__(
        self,
        store: CalibrationStore,
        planner: Planner,
        *,
        models: Planner,
        allowed: bool,
        metrics: Metrics,
        log: FilteringBoundLogger,
        clock: Callable[[], datetime],
        turns: TurnsOf,
    ) -> None:
        self._store = store
        self._planner = planner
        self._models = models
        self.allowed = allowed
        self._metrics = metrics
        self._log = log
        self._clock = clock
        self._fits = turns("fits", at_once=1)
        self._told: str | None = None
        self._counted: str | None = None
        self._stored_at = math.nan

    def refresh(self) -> None:
        """Answer with the calibration that is active now, whoever made it so, and count it.

        Raises:
            CalibrationError: its document is gone or was changed; the one before goes on answering.
        """
        try:
            calibration = self._store.active()
            drift = len(self._store.drift(calibration.id))
            if calibration.id != self._counted:
                stored = next((one.stored_at for one in self._store.list() if one.id == calibration.id), None)
                self._stored_at = stored.timestamp() if stored else math.nan
        except StoreUnavailable as error:
            self._tell(f"the calibration goes on as it was: {with_cause(error)}")
            return
        self._told = None
        self._planner.calibration = calibration
        self._counted = calibration.id
        self._metrics.calibration(calibration, self._stored_at, drift)

    @asynccontextmanager
    async def watched(self, seconds: float) -> AsyncIterator[None]:
        """Look for another activation every so often, until the block ends: other processes activate too."""
        watch = asyncio.create_task(self._watch(seconds))
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            if isinstance(self._store, DatabaseStore):
                await to_thread.run_sync(self._store.dispose)

    @property
    def calibration(self) -> Calibration:
        """The one that answers now."""
        return self._planner.calibration

    def known(self) -> tuple[bool, list[dict[str, Any]]]:
        """Whether the active one is the release's, and the rows that are kept of it. To be called in a thread."""
        history = self._store.history()
        is_shipped = not history or history[-1].id == SHIPPED
        return is_shipped, [] if is_shipped else list(self._store.measurements(history[-1].id))

    def keep(self, calibration: Calibration, documents: Iterable[Mapping[str, Any]]) -> bool:
        """Keep a calibration with its rows; False where it was here. To be called in a thread."""
        new = self._store.put(calibration)
        self._store.keep_measurements(calibration.id, documents)
        return new

    def was_decided(self, id: str, since: datetime) -> bool:
        """Whether a calibration ever answered, or another was chosen since. To be called in a thread."""
        return any(one.id == id or one.at >= timestamp(since) for one in self._store.history())

    def make_active(self, id: str, *, why: str) -> None:
        """Answer with a calibration from now on. To be called in a thread."""
        self._activated(self._store.activate(id, why=why, at=self._clock()))

    async def page(self, *, limit: int, after: str | None) -> dict[str, Any]:
        """Some of the calibrations, the newest first. Raises UnknownCalibration for what is to begin it."""
        return await to_thread.run_sync(self._page, limit, after)

    async def summary(self, id: str) -> dict[str, Any]:
        """One of them. Raises UnknownCalibration, CalibrationError."""
        return await to_thread.run_sync(lambda: summary(self._store.get(id)))

    async def document(self, id: str) -> Calibration:
        """One of them as it is, its residuals included. Raises as `summary`."""
        return await to_thread.run_sync(self._store.get, id)

    async def active(self) -> dict[str, Any]:
        """The one that answers, with its activation and what was noted beyond its bound."""
        return await to_thread.run_sync(self._active)

    async def fit(self, data: Any) -> Made:
        """Fit a calibration to the measurements of a request's body and keep it.

        Raises:
            CtxplanError: a measurement is none or names a model that is not known; none can be fitted. FitBroken: the
                fit's process ended without an answer.
        """
        async with self._fits.taken():
            body = await self._fits.to_the_end(to_thread.run_sync(self._readable, data))
            before = self._planner.calibration
            fitted = await fit_rows_apart(body["measurements"], before, leave_out=body.get("leave_out", ()))
            new = await self._fits.to_the_end(to_thread.run_sync(self.keep, fitted.calibration, fitted.documents))
        shown = {"new": new, "before": before.named(), "errors": list(fitted.errors)}
        return Made(document={**summary(fitted.calibration), **shown}, new=new)

    async def compare(self, before: str, after: str) -> dict[str, Any]:
        """Two calibrations side by side, with their errors on the rows that are kept of both."""
        return await self._fits.in_thread(self._compare, before, after)

    async def activate(self, id: str, data: Any) -> dict[str, Any]:
        """Answer with one of them from now on. Raises UnknownCalibration, CalibrationError."""
        why = why_of(data)
        return await to_thread.run_sync(lambda: self._activated(self._store.activate(id, why=why, at=self._clock())))

    async def rollback(self, data: Any) -> dict[str, Any]:
        """Answer with the one before. Raises NothingToRollBack."""
        why = why_of(data)
        return await to_thread.run_sync(lambda: self._activated(self._store.rollback(why=why, at=self._clock())))

    def _page(self, limit: int, after: str | None) -> dict[str, Any]:
        history = self._store.history()
        stored = list(self._store.list())
        start = 0 if after is None else _place(stored, after if after == SHIPPED else self._store.get(after).id) + 1
        page = stored[start : start + limit]
        more = start + limit < len(stored)
        items = listed(page, history[-1].id if history else SHIPPED)
        return {"items": items, "next": page[-1].id if page and more else None}

    def _active(self) -> dict[str, Any]:
        calibration, history = self._store.active(), self._store.history()
        return {
            **summary(calibration),
            "shipped": not history or history[-1].id == SHIPPED,
            "activation": history[-1].to_json() if history else None,
            "drift": list(self._store.drift(calibration.id)),
        }

    def _readable(self, data: Any) -> Mapping[str, Any]:
        """The body of a fit whose rows are measurements of models that a request may name."""
        from probes.fitting.rows import read_rows

        body = parse_body(data)
        rows = read_rows(body["measurements"], most=MAX_MEASUREMENTS)
        self._check_models(row.job.get("model") for row in rows)
        return body

    def _check_models(self, models: Any) -> None:
        """Refuse a measurement whose model a request may not name: a directory of this machine, among others."""
        known: set[str] = set()
        for number, model in enumerate(models):
            if isinstance(model, str) and model in known:
                continue
            try:
                if not isinstance(model, str | Mapping):
                    raise UnknownModel(f"{shown(model)} is no model", allowed="a Hub id or a config object")
                self._models.facts(model)
            except (ArchitectureError, UnknownModel) as error:
                raise InvalidMeasurements(
                    error.message, key=f"measurements[{number}].job.model", allowed=error.allowed
                ) from None
            if isinstance(model, str):
                known.add(model)

    def _compare(self, first: str, second: str) -> dict[str, Any]:
        from probes.fitting.compare import differences, errors_of, observed
        from probes.fitting.rows import read_rows

        before, after = self._store.get(first), self._store.get(second)
        kept = list(self._store.measurements(before.id, after.id))
        rows = read_rows(kept) if kept else []
        return {
            "before": before.named(),
            "after": after.named(),
            "differences": differences(before, after),
            "errors": [group.to_json() for group in errors_of(observed(rows), before, after)],
        }

    def _activated(self, activation: Activation) -> dict[str, Any]:
        self.refresh()
        calibration: Calibration = self._planner.calibration
        return {"calibration": calibration.named(), "activation": activation.to_json()}

    async def _watch(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await to_thread.run_sync(self.refresh)
            except CtxplanError as error:
                self._tell(f"the calibration goes on as it was: {with_cause(error)}")
            except Exception:  # whatever it is, the next look may do better
                self._log.exception("the active calibration could not be looked for")

    def _tell(self, text: str) -> None:
        """Log a fault once, however often it is seen."""
        if text != self._told:
            self._log.warning("calibration", detail=text)
        self._told = text


def open_calibrations(
    settings: Settings, planner: Planner, *, metrics: Metrics, log: FilteringBoundLogger, turns: TurnsOf
) -> Calibrations:
    """The service's calibrations, the active one in use. Raises CalibrationError where its document was changed."""
    opened = Calibrations(
        store_of(settings),
        planner,
        models=Planner(offline=True, allow_local=settings.allow_local_models),
        allowed=settings.allow_calibration,
        metrics=metrics,
        log=log,
        clock=lambda: datetime.now(UTC),
        turns=turns,
    )
    opened.refresh()
    return opened


def store_of(settings: Settings) -> CalibrationStore:
    """Where the calibrations are: in the database that replicas share, else in the directory that the command line of
    this machine uses as well."""
    if settings.calibrations is None and read_url(settings.database_url).drivername.startswith("postgresql"):
        return DatabaseStore(settings.database_url)
    return FileStore(settings.calibrations)


def parse_body(data: Any) -> Mapping[str, Any]:
    """``{"measurements": [...], "leave_out": [...]}``. Raises InvalidMeasurements."""
    return _parsed(BODY, data, "a calibration's request", frozenset({"measurements"}))


def why_of(data: Any) -> str:
    """``{"why": "..."}``, which may be left out. Raises InvalidMeasurements."""
    return str(_parsed(WHY, data, "an activation", frozenset()).get("why") or "asked for over HTTP")


class _Rows:
    """An array, whose items `probes.fitting.rows.read_rows` reads and counts; more than it takes, and most bodies are
    too large before, which is why the schema states no limit."""

    def parse(self, key: str, value: Any) -> list[Any]:
        if not isinstance(value, list):
            raise InvalidMeasurements(f"{shown(value)} is not accepted", key=key, allowed="an array of measurements")
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "object"}, "minItems": 1}


BODY: Mapping[str, Rule] = {"measurements": _Rows(), "leave_out": Names()}
WHY: Mapping[str, Rule] = {"why": Text(MAX_WHY)}


def _parsed(rules: Mapping[str, Rule], data: Any, what: str, required: frozenset[str]) -> Mapping[str, Any]:
    try:
        return parse_object(rules, data, what=what, required=required)
    except CtxplanError as error:
        raise InvalidMeasurements(error.message, key=error.key, allowed=error.allowed) from None


def _place(stored: list[Stored], id: str) -> int:
    return next(number for number, one in enumerate(stored) if one.id == id)
