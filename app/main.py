"""The planning service, as an ASGI application: ``uvicorn --factory app.main:create_app``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from app.calibrations import open_calibrations
from app.handlers import install_handlers
from app.limits import BodyLimit
from app.logs import make_logger
from app.metrics import Metrics
from app.observe import Observe
from app.openapi import install_openapi
from app.pages import STATIC
from app.plans import Plans
from app.routers import calibrations as calibration_routes
from app.routers import estimates, gpus, health, max_context, models, pages, plans, preflight, scripts, tiers, tokens
from app.settings import Settings
from app.state import State
from app.tokens.service import TokenCounts
from ctxplan import Planner, __version__

DESCRIPTION = (
    "Plans the GPU memory and the context length of Unsloth fine-tuning runs. Every error is a problem document."
)
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
    health,
    pages,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Build the application; nothing is shared between two of them."""
    settings = settings or Settings()
    log = make_logger(settings.log_level)
    metrics = Metrics()
    planner = Planner(offline=not settings.allow_hub, allow_local=settings.allow_local_models)
    # Before anything is served: a broken active calibration is a fault of the set-up, and says so.
    calibrations = open_calibrations(settings, planner, metrics=metrics, log=log)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[State]:
        planning = Plans(planner, lookup_threads=settings.lookup_threads)
        counts = TokenCounts(offline=not settings.allow_hub, allow_local=settings.allow_local_models)
        async with calibrations.watched(settings.calibration_refresh_seconds):
            yield State(plans=planning, calibrations=calibrations, tokens=counts, metrics=metrics, log=log)

    app = _application(lifespan)
    install_handlers(app)
    # The last one added is the outermost: Observe sees everything, a refused body included.
    app.add_middleware(BodyLimit, limit_bytes=settings.max_body_bytes)
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
