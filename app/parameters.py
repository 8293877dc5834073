"""Holds a request to the parameters of its route: a filter that is misspelt would be one that was not given."""

from __future__ import annotations

from fastapi import Depends
from fastapi.routing import APIRoute
from starlette.requests import Request

from estimator.errors import CtxplanError
from estimator.rules import hint, shorten


class UnknownParameter(CtxplanError):
    """The query has a parameter that the route does not know."""

    code = "invalid-request"


async def only_known(request: Request) -> None:
    """Refuse a parameter of the query that the route does not declare, and say which was perhaps meant.

    Raises:
        UnknownParameter: it names the first one.
    """
    route: APIRoute = request.scope["route"]
    known = tuple(one.alias for one in route.dependant.query_params)
    for name in request.query_params:
        if name not in known:
            raise UnknownParameter(
                f"unknown parameter{hint(name, known)}",
                key=f"query.{shorten(name)}",
                allowed=", ".join(known) or "no parameter",
            )


KNOWN = Depends(only_known)
