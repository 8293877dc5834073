"""The OpenAPI document: FastAPI's own, with the job's schema from the estimator and one problem schema for
every error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from app.problems import KINDS, MEDIA_TYPE, Problem, code_of_status
from app.security import Needs
from estimator.job import job_schema

KEY = "key"
Responses = dict[int | str, dict[str, Any]]


def problems(*statuses: int) -> Responses:
    """``responses`` of a route that may answer these statuses with a problem document. All may fail, refuse a
    caller that asks too often, or refuse everybody while there is too much to do."""
    return {status: _problem_response(status) for status in (*statuses, 429, 500, 503)}


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
    document["components"]["securitySchemes"] = {KEY: {"type": "http", "scheme": "bearer", "bearerFormat": "ctxp_..."}}
    for route in app.routes:
        if isinstance(route, APIRoute) and route.include_in_schema and (scope := scope_of(route)):
            for method in route.methods or ():
                _say_what_is_needed(document["paths"][route.path_format][method.lower()], scope)
    return document


def scope_of(route: APIRoute) -> str | None:
    """The scope that a route declares it needs, for itself or as one of its parameters; None where it declares none."""
    declared = [one.dependency for one in route.dependencies]
    declared += [one.call for one in route.dependant.dependencies]
    return next((one.scope for one in declared if isinstance(one, Needs)), None)


def _say_what_is_needed(operation: dict[str, Any], scope: str) -> None:
    """A key is needed unless the service listens on loopback alone, which a document cannot know: so it may be left
    out, and what happens then is stated."""
    operation["security"] = [{KEY: []}, {}]
    operation["x-scope"] = scope
    for status, response in problems(401, 403, 503).items():
        operation["responses"].setdefault(str(status), response)


def _problem_response(status: int) -> dict[str, Any]:
    titles = [kind.title for kind in KINDS.values() if kind.status == status]
    return {
        "description": "; ".join(titles) or KINDS[code_of_status(status)].title,
        "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
