"""The pages that explain: the interactive documentation, and what a problem means."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.answers import json_answer
from app.openapi import problems
from app.pages import page
from app.problems import KINDS
from app.routers.page_route import PageRoute, wants_html
from app.schemas import ProblemKind
from app.security import OPEN

router = APIRouter(route_class=PageRoute, tags=["pages"], dependencies=[OPEN])

JSON = ".json"


@router.get("/docs", include_in_schema=False)
async def docs(request: Request) -> Response:
    """Swagger UI, from files that travel with the service."""
    return page(request, "docs.html")


@router.get(
    "/problems/{code}",
    tags=["operations"],
    responses={
        200: {"model": ProblemKind, "content": {"text/html": {"schema": {"type": "string"}}}},
        **problems(404, 422),
    },
)
async def problem_kind(request: Request, code: str) -> Response:
    """Explain a problem's `type`: a page for a browser, JSON for a program and where `.json` ends the address."""
    is_json = code.endswith(JSON) or not wants_html(request)
    code = code.removesuffix(JSON)
    kind = KINDS.get(code)
    if kind is None:
        raise HTTPException(404, "no problem has this code")
    if not is_json:
        return page(request, "problem.html", kind=kind, code=code, detail=None, back=None)
    return json_answer({"code": code, "status": kind.status, "title": kind.title, "explanation": kind.explanation})
