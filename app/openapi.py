"""The OpenAPI document: FastAPI's own, with the job's schema from the estimator and one problem schema for
every error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from app.problems import KINDS, MEDIA_TYPE, Problem, code_of_status
from estimator.job import job_schema

Responses = dict[int | str, dict[str, Any]]


def problems(*statuses: int) -> Responses:
    """``responses`` of a route that may answer these statuses with a problem document; 500 always may."""
    return {status: _problem_response(status) for status in (*statuses, 500)}


def install_openapi(app: FastAPI) -> None:
    """Have ``app`` write the document once, when it is first asked for."""
    app.openapi = _document_of(app)  # type: ignore[method-assign]


def _document_of(app: FastAPI) -> Callable[[], dict[str, Any]]:
    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _build(app)
        return app.openapi_schema

    return document


def _build(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(problem.pop("$defs", {}))
    schemas["Problem"] = problem
    schemas["Job"] = job_schema()
    return document


def _problem_response(status: int) -> dict[str, Any]:
    titles = [kind.title for kind in KINDS.values() if kind.status == status]
    return {
        "description": "; ".join(titles) or KINDS[code_of_status(status)].title,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
