"""The planner's page: a form whose state is its address, and the answer to it; whole, in parts for htmx, or as JSON."""

from __future__ import annotations

from functools import partial
from typing import Any
from urllib.parse import urlencode

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from app.answers import json_answer
from app.dependencies import plans_of, while_connected
from app.page.answer import Answer, More, answer_of, more_of
from app.page.fields import form_of_job, form_of_texts
from app.page.query import job_of_query, unknown_keys
from app.page.search import nearest, search
from app.pages import page
from app.problems import KINDS
from app.routers.page_route import PageRoute
from app.security import PLAN
from estimator import Job
from estimator.errors import CtxplanError
from estimator.rules import shorten

router = APIRouter(route_class=PageRoute, tags=["pages"], dependencies=[PLAN], include_in_schema=False)

WHOLE = "whole"
"""The key of the query that asks for a page without parts that come later, for browsers without JavaScript."""

PASSING = frozenset({"overloaded"})
ANSWERED = {"hx-trigger": "answered"}
"""Tells the parts of the page that come later to follow, be it with nothing."""


@router.get("/")
async def planner(request: Request) -> Response:
    """The form and its answer. A question that cannot be answered is shown with what is wrong with it."""
    pairs = _pairs(request)
    try:
        job = job_of_query(pairs)
        answer = await _answer(request, job)
        more = await _more(request, job) if request.query_params.get(WHOLE) else None
    except CtxplanError as error:
        _not_a_moment(error)
        form = form_of_texts(dict(pairs), error.key)
        status = KINDS[error.code].status if error.code in KINDS else 422
        return page(request, "planner.html", status=status, form=form, **_shown(request, error=error))
    return page(request, "planner.html", form=form_of_job(job), **_shown(request, answer, more))


@router.get("/planner.json")
async def planner_json(request: Request) -> Response:
    """Everything that the page shows, for a program."""
    job = job_of_query(_pairs(request))
    answer, more = await _answer(request, job), await _more(request, job)
    return json_answer({**answer.to_json(), **more.to_json()})


@router.get("/page/answer")
async def answer(request: Request) -> Response:
    """The answer alone, after a change of the form; the address follows it.

    A question that cannot be answered is an answer of the page too, so its status is 200.
    """
    try:
        found = await _answer(request, job_of_query(_pairs(request)))
    except CtxplanError as error:
        _not_a_moment(error)
        return page(request, "answer.html", headers=ANSWERED, **_shown(request, error=error, alone=True))
    headers = {"hx-replace-url": f"/?{found.query}", **ANSWERED}
    return page(request, "answer.html", headers=headers, **_shown(request, found, alone=True))


@router.get("/page/more")
async def more(request: Request) -> Response:
    """What takes longer than the answer: what to change, and other cards. Nothing where there is no answer."""
    try:
        found = await _more(request, job_of_query(_pairs(request)))
    except CtxplanError as error:
        _not_a_moment(error)
        return page(request, "more.html", more=None)
    return page(request, "more.html", more=found)


@router.get("/page/models")
async def models(request: Request) -> Response:
    """The catalogue's models that match what has been typed so far, as options of the list below the field."""
    return page(request, "models.html", models=search(request.query_params.get("model", "")))


async def _answer(request: Request, job: Job) -> Answer:
    question = partial(answer_of, job, address=_address(request))
    return await while_connected(request, plans_of(request).ask(job.model, question))


async def _more(request: Request, job: Job) -> More:
    return await while_connected(request, plans_of(request).ask(job.model, partial(more_of, job)))


def _not_a_moment(error: CtxplanError) -> None:
    """Raise what says nothing of the question and will pass: the page asks again by itself."""
    if error.code in PASSING:
        raise error


def _address(request: Request) -> str:
    return str(request.base_url).rstrip("/")


def _pairs(request: Request) -> list[tuple[str, str]]:
    return [(key, text) for key, text in request.query_params.multi_items() if key != WHOLE]


def _shown(
    request: Request,
    answer: Answer | None = None,
    more: More | None = None,
    *,
    error: CtxplanError | None = None,
    alone: bool = False,
) -> dict[str, Any]:
    """What the templates read. ``alone``: the answer replaces one on a page, whose spoken summary goes with it."""
    suggestion = nearest(error) if error else None
    pairs = _pairs(request)
    unknown = unknown_keys(pairs) if error else ()
    known = urlencode([(key, text) for key, text in pairs if key not in unknown])
    return {
        "answer": answer,
        "more": more,
        "error": error,
        "suggestion": suggestion,
        "unknown": [shorten(key) for key in unknown],
        "without": known if unknown else None,
        "asked": urlencode(pairs),
        "address": _address(request),
        "oob": alone,
    }
