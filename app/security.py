"""Who may do what over HTTP. Every route declares the scope that it needs, or that it is open to all.

No ``from __future__ import annotations`` here: FastAPI reads the annotations of `Needs.__call__`, an instance's, and
could not look their names up.
"""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from time import monotonic
from typing import Annotated, Literal

from fastapi import Depends
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from app.backend import Backend
from app.keys.form import is_key
from app.keys.store import SCOPES, KeyView
from estimator.errors import CtxplanError

Scope = Literal["plan", "measure", "work", "admin"]
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="ctxplan"'}
REMEMBERED_SECONDS = 5.0
"""How long a key that was checked is taken without asking the database: a revocation takes effect within that."""
MAX_REMEMBERED = 1024


class MissingScope(CtxplanError):
    """The key is valid, and may not do this."""

    code = "missing-scope"

    def __init__(self, scope: str) -> None:
        super().__init__(f"the key has not the scope {scope}", allowed=f"a key with the scope {scope}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks. ``name`` tells one from another; ``local`` is whoever may reach a loopback address without a key."""

    name: str
    scopes: frozenset[str]
    is_local: bool = False


LOCAL = Principal(name="local", scopes=frozenset(SCOPES), is_local=True)


class Gate:
    """Knows who a request is from.

    Args:
        required: whether a request without a key is refused; see `keys_are_required`.
    """

    def __init__(self, backend: Backend, *, required: bool, time: Callable[[], float] = monotonic) -> None:
        self.required = required
        self._backend = backend
        self._time = time
        self._remembered: dict[str, tuple[float, KeyView]] = {}

    async def principal(self, request: Request) -> Principal:
        """Raises HTTPException 401 for no key or a wrong one, and QueueUnavailable where none can be checked."""
        header = request.headers.get("authorization")
        if header is None:
            if self.required:
                raise _unauthenticated("this server asks for an API key")
            _refuse_other_sites(request)
            return LOCAL
        scheme, _, key = header.partition(" ")
        if scheme.lower() != "bearer":
            raise _unauthenticated("the Authorization header is not a bearer's")
        view = await self._checked(key.strip())
        if view is None or not view.is_valid(self._backend.clock()):
            raise _unauthenticated("the API key is not valid")
        return Principal(name=view.id, scopes=frozenset(view.scopes))

    async def _checked(self, key: str) -> KeyView | None:
        if not is_key(key):
            return None
        now = self._time()
        until, view = self._remembered.get(key, (0.0, None))
        if view is not None and now < until:
            return view
        self._remembered.pop(key, None)
        keys = await self._backend.keys()
        view = await keys.find(key)
        if view is None or not view.is_valid(self._backend.clock()):
            return view
        with suppress(SQLAlchemyError):  # a full disk does not lock anybody out
            await keys.used(view)
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[key] = (now + REMEMBERED_SECONDS, view)
        return view


class Needs:
    """What a route needs: a dependency that refuses who has not this scope."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Principal:
        gate: Gate = request.state.gate
        principal = await gate.principal(request)
        if self.scope not in principal.scopes:
            raise MissingScope(self.scope)
        return principal


async def anyone() -> None:
    """Declares a route open: it answers whoever asks, and says nothing that is anybody's own."""


OPEN = Depends(anyone)
PLAN = Depends(Needs("plan"))
MEASURE = Depends(Needs("measure"))
WORK = Depends(Needs("work"))
ADMIN = Depends(Needs("admin"))

Measuring = Annotated[Principal, MEASURE]
Working = Annotated[Principal, WORK]
Administering = Annotated[Principal, ADMIN]


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def keys_are_required(host: str, asked: bool | None) -> bool:
    """Whether every request needs a key: as was asked for, and else on every address but loopback."""
    return not is_loopback(host) if asked is None else asked


def _unauthenticated(detail: str) -> HTTPException:
    return HTTPException(401, detail, headers=CHALLENGE)


def _refuse_other_sites(request: Request) -> None:
    """A page of another site that a person has open reaches loopback as well, and asks for no key either."""
    if request.method not in ("GET", "HEAD") and request.headers.get("sec-fetch-site") in ("cross-site", "same-site"):
        raise HTTPException(403, "without an API key, a page of another site changes nothing here")
