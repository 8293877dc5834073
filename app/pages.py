"""HTML pages that load nothing from anywhere else, from the templates in ``app/templates/page``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from app.page.words import FILTERS
from ctxplan import __version__

HERE = Path(__file__).parent
STATIC = HERE / "static"
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "vary": "accept",
    "cache-control": "no-cache",
}


NAVIGATION = (
    ("/", "Plan", "plan"),
    ("/tiers", "Tiers", "plan"),
    ("/calibrations", "Calibrations", "plan"),
    ("/jobs", "Jobs", "measure"),
    ("/workers", "Workers", "measure"),
    ("/docs", "API", None),
)
"""The pages that every page leads to, each with the scope that it needs."""


def page(
    request: Request, template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **values: Any
) -> HTMLResponse:
    """A page, or a part of one, with a policy that lets only this service's own scripts and styles run.

    Args:
        request: whose principal, where its route asked for one, decides what is offered.
        template: a file of ``app/templates/page``. headers: beside those that every page has.
    """
    viewer = getattr(request.state, "principal", None)
    offered = [one for one in NAVIGATION if viewer is None or one[2] is None or one[2] in viewer.scopes]
    html = _environment().get_template(template).render({"viewer": viewer, "navigation": offered, **values})
    return HTMLResponse(html, status_code=status, headers={**HEADERS, **(headers or {})})


def asset(name: str) -> str:
    """Where a static file is served, with a mark of its content: a new release is never shown with old styles."""
    return f"/static/{name}?{_digest(name)}"


@cache
def _digest(name: str) -> str:
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:12]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates" / "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    environment.globals.update(asset=asset, version=__version__)
    return environment
