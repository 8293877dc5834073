"""What the routes are given: the job in the body, and what the application shares."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from app.jobs.service import Jobs
from app.jsontext import read_json
from app.plans import Plans
from app.security import Needs
from estimator import Job, parse_job

Answer = TypeVar("Answer")


async def json_of_body(request: Request) -> Any:
    """Read the body as one JSON document. Raises UnreadableJson, and HTTPException where it is not declared as JSON."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HTTPException(415, f"the body must be application/json, not {media_type[:80] or 'undeclared'}")
    return read_json(await request.body())


async def job_of_body(request: Request) -> Job:
    """Read the job from the body.

    The body is parsed by the same functions as a file on the command line, so both refuse the same things in
    the same words.
    """
    return parse_job(await json_of_body(request))


def plans_of(request: Request) -> Plans:
    """The application's planner."""
    plans: Plans = request.state.plans
    return plans


def jobs_of(request: Request) -> Jobs:
    """The application's queue."""
    jobs: Jobs = request.state.jobs
    return jobs


async def while_connected(request: Request, work: Coroutine[Any, Any, Answer]) -> Answer:
    """What the work answers, which is broken off where nobody waits for it any more. The body has been read.

    Raises:
        ClientDisconnect: the client has gone. What the work raises, and what reading on raises.
    """
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            leaving.result()  # what was wrong with the rest of the request, if that ended it
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.wait({working, leaving})


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


JobEndpoint = Callable[..., Coroutine[Any, Any, Response]]

JobBody = Annotated[Job, Depends(job_of_body)]
"""The route's body is a job; add `app.schemas.JOB_BODY` to the route, so that the document says so."""


class JobRoute(APIRoute):
    """A route whose endpoint takes the request and its job, and nothing else.

    The job is read once, here, after what the route needs of who asks: to solve the dependencies in general costs as
    much as a plan.
    """

    def __init__(self, path: str, endpoint: JobEndpoint, **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self.app = _answering(endpoint, [one.dependency for one in self.dependencies])


def _answering(endpoint: JobEndpoint, dependencies: Sequence[Any]) -> ASGIApp:
    needs = [one for one in dependencies if isinstance(one, Needs)]

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        for need in needs:
            await need(request)
        response = await endpoint(request=request, job=await job_of_body(request))
        await response(scope, receive, send)

    return answer
