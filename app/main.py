"""The planning service, as an ASGI application: ``uvicorn --factory app.main:create_app``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from threading import Event

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from app.admission import Admission, Lag
from app.apart import Apart
from app.backend import Backend
from app.calibrations import open_calibrations
from app.handlers import install_handlers
from app.jobs.background import Background
from app.jobs.service import Jobs
from app.limits import BodyLimit
from app.logs import make_logger
from app.metrics import Metrics
from app.observations.service import Observations
from app.observe import Observe
from app.openapi import install_openapi
from app.pages import STATIC
from app.plans import Plans
from app.routers import calibrations as calibration_routes
from app.routers import (
    campaigns,
    estimates,
    evidence_pages,
    gpus,
    health,
    leases,
    max_context,
    measurements,
    models,
    observations,
    pages,
    planner,
    plans,
    preflight,
    probe_jobs,
    queue_pages,
    scripts,
    sign_in,
    tiers,
    tokens,
    workers,
)
from app.routers.page_route import answer_unknown_addresses
from app.security import Gate, keys_are_required, names_of
from app.settings import Settings
from app.state import State
from app.tokens.service import TokenCounts
from app.turns import Turns
from ctxplan import Planner, __version__

DESCRIPTION = (
    "Plans the GPU memory and the context length of Unsloth fine-tuning runs. Every error is a problem document."
)
RATE_WITH_KEYS = 100.0
"""Requests a second of one caller where keys are required and nothing else is set."""
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[State]]
ROUTERS = (
    estimates,
    max_context,
    preflight,
    plans,
    scripts,
    models,
    gpus,
    tiers,
    tokens,
    calibration_routes,
    probe_jobs,
    leases,
    measurements,
    observations,
    campaigns,
    workers,
    health,
    planner,
    evidence_pages,
    queue_pages,
    sign_in,
    pages,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application; nothing is shared between two of them."""
    settings = settings or Settings()
    log = make_logger(settings.log_level)
    metrics = Metrics()
    planner = Planner(offline=not settings.allow_hub, allow_local=settings.allow_local_models)
    turns = partial(Turns, max_waiting=settings.max_waiting_plans, metrics=metrics, log=log)
    # Before anything is served: a broken active calibration is a fault of the set-up, and says so.
    calibrations = open_calibrations(settings, planner, metrics=metrics, log=log, turns=turns)

    stopping = Event()
    lag = Lag(settings.max_lag_ms / 1000)
    needs_keys = keys_are_required(settings.host, settings.require_keys)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        backend = Backend(settings, log=log)
        known = Planner(offline=True, allow_local=settings.allow_local_models)
        jobs = Jobs(backend, planner, calibrations, settings, models=known, turns=turns)
        background = Background(jobs, seconds=settings.sweep_seconds, log=log)
        watched = calibrations.watched(settings.calibration_refresh_seconds)
        apart = Apart(
            planner,
            processes=settings.planning_processes,
            max_waiting=settings.max_waiting_plans,
            metrics=metrics,
            log=log,
        )
        async with lag.watched(), watched, backend.opened(), apart.running(), background.running():
            yield State(
                plans=Plans(planner, apart=apart, lookups=turns("lookups", at_once=settings.lookup_threads)),
                calibrations=calibrations,
                backend=backend,
                gate=Gate(backend, required=needs_keys, names=names_of(settings)),
                jobs=jobs,
                observations=Observations(backend, planner, known=known, metrics=metrics, log=log, turns=turns),
                event_seconds=settings.event_seconds,
                stopping=stopping,
                tokens=TokenCounts(
                    offline=not settings.allow_hub, allow_local=settings.allow_local_models, turns=turns
                ),
                metrics=metrics,
                log=log,
            )

    app = _application(lifespan)
    app.state.stopping = stopping
    install_handlers(app)
    answer_unknown_addresses(app)
    # The last one added is the outermost: Observe sees everything, a refused body included.
    app.add_middleware(BodyLimit, limit_bytes=settings.max_body_bytes)
    per_second = settings.requests_per_second
    app.add_middleware(
        Admission,
        per_second=(RATE_WITH_KEYS if needs_keys else 0) if per_second is None else per_second,
        lag=lag,
        metrics=metrics,
    )
    app.add_middleware(Observe, metrics=metrics, log=log)
    return app


def _application(lifespan: Lifespan) -> FastAPI:
    app = FastAPI(
        title="ctxplan",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for module in ROUTERS:
        # The routes themselves: an included router is a second match on the way of every request.
        app.router.routes.extend(module.router.routes)
    app.mount("/static", StaticFiles(directory=STATIC))
    install_openapi(app)
    return app
