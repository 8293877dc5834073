"""The pages that a person opens: the index, the interactive documentation, what a problem means."""

from __future__ import annotations

from html import escape

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.answers import json_answer
from app.openapi import problems
from app.pages import page
from app.problems import KINDS
from app.schemas import ProblemKind
from ctxplan import __version__

router = APIRouter(tags=["pages"])

_LINKS = (
    ("/docs", "The HTTP interface, to read and to try"),
    ("/openapi.json", "The same as an OpenAPI document"),
    ("/v1/models", "The models that are known"),
    ("/v1/gpus", "The GPUs that are known"),
    ("/v1/tiers", "Claims about long contexts, and their evidence"),
    ("/readyz", "Whether the service can plan"),
    ("/metrics", "What it has done"),
)
_DOCS_HEAD = (
    '<link rel="stylesheet" href="/static/swagger-ui/swagger-ui.css">\n'
    '<script src="/static/swagger-ui/swagger-ui-bundle.js" defer></script>\n'
    '<script src="/static/docs.js" defer></script>\n'
)


@router.get("/", include_in_schema=False)
async def index() -> Response:
    """The way to everything else."""
    items = "\n".join(f'<li><a href="{link}">{link}</a> {escape(text)}</li>' for link, text in _LINKS)
    question = "Will this fine-tune fit, and how long a context can it have?"
    body = f"<h1>ctxplan {escape(__version__)}</h1>\n<p>{question}</p>"
    return page("ctxplan", f"{body}\n<ul>\n{items}\n</ul>")


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    """Swagger UI, from files that travel with the service."""
    return page("ctxplan: HTTP interface", '<div id="swagger-ui"></div>', head=_DOCS_HEAD)


@router.get(
    "/problems/{code}",
    tags=["operations"],
    responses={
        200: {"model": ProblemKind, "content": {"text/html": {"schema": {"type": "string"}}}},
        **problems(404, 422),
    },
)
async def problem_kind(request: Request, code: str) -> Response:
    """Explain a problem's `type`: a page for a browser, JSON for a program."""
    kind = KINDS.get(code)
    if kind is None:
        raise HTTPException(404, "no problem has this code")
    if "text/html" in request.headers.get("accept", ""):
        head = f"<h1>{escape(kind.title)}</h1>\n<p>{kind.status} <code>{escape(code)}</code></p>"
        return page(kind.title, f"{head}\n<p>{escape(kind.explanation)}</p>")
    return json_answer({"code": code, "status": kind.status, "title": kind.title, "explanation": kind.explanation})
