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
from app.keys.attempts import Attempts
from app.keys.form import is_key
from app.keys.sessions import Session, Sessions
from app.keys.store import SCOPES, KeyStore, KeyView
from app.settings import Settings
from estimator.errors import CtxplanError

Scope = Literal["plan", "measure", "work", "admin"]
CHALLENGE = {"WWW-Authenticate": 'Bearer realm="ctxplan"'}
REMEMBERED_SECONDS = 5.0
"""How long a key that was checked is taken without asking the database: a revocation takes effect within that."""
MAX_REMEMBERED = 1024
COOKIE = "ctxplan_session"
PURPOSE = "browser session"


class OtherSite(CtxplanError):
    """A page of another site asks for a change."""

    code = "other-site"

    def __init__(self) -> None:
        super().__init__("a page of another site changes nothing here")


class OtherName(CtxplanError):
    """The service is called by a name that is none of its own."""

    code = "other-name"

    def __init__(self) -> None:
        super().__init__("this service is not called by that name: CTXPLAN_ALLOWED_HOSTS lists those it has")


class MissingScope(CtxplanError):
    """The key is valid, and may not do this."""

    code = "missing-scope"

    def __init__(self, scope: str) -> None:
        super().__init__(f"the key has not the scope {scope}", allowed=f"a key with the scope {scope}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks. ``name`` tells one from another; ``local`` is whoever may reach a loopback address without a key.

    Attributes:
        is_signed_in: it is a browser, by its session.
    """

    name: str
    scopes: frozenset[str]
    is_local: bool = False
    is_signed_in: bool = False


LOCAL = Principal(name="local", scopes=frozenset(SCOPES), is_local=True)


class Gate:
    """Knows who a request is from.

    Args:
        required: whether a request without a key is refused; see `keys_are_required`.
        names: by which the service may be called without a key, beside loopback's own; None: by any.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        required: bool,
        names: frozenset[str] | None = None,
        time: Callable[[], float] = monotonic,
    ) -> None:
        self.required = required
        self._names = names
        self.attempts = Attempts(time=time)
        self._backend = backend
        self._time = time
        self._sessions: Sessions | None = None
        self._remembered: dict[str, tuple[float, KeyView]] = {}

    async def principal(self, request: Request) -> Principal:
        """By its key, else by its browser's session. Where no key is needed, a session is not looked at.

        Raises:
            HTTPException: 401 for no key or a wrong one. OtherSite, OtherName: without a key, another's page asks.
                QueueUnavailable: none can be checked.
        """
        header = request.headers.get("authorization")
        if header is not None:
            return await self._bearer(header)
        refuse_other_sites(request)
        if not self.required:
            if self._names is not None:
                refuse_other_names(request, self._names)
            return LOCAL
        cookie = request.cookies.get(COOKIE)
        if not cookie:
            raise _unauthenticated("this server asks for an API key")
        view = await self._of_session(cookie)
        if view is None:
            raise _unauthenticated("the session has ended: sign in again")
        return Principal(name=view.id, scopes=frozenset(view.scopes), is_signed_in=True)

    async def lets_in(self, request: Request, scope: Scope) -> bool:
        """Whether a request that was let in still would be: its key or session may have ended since.

        Raises:
            QueueUnavailable, SQLAlchemyError: that cannot be told now.
        """
        try:
            return scope in (await self.principal(request)).scopes
        except (HTTPException, OtherSite, OtherName):
            return False

    async def sign_in(self, key: str) -> str | None:
        """The cookie of a new session for who has this key; None where it opens nothing. Raises QueueUnavailable."""
        view = await self._checked(key)
        if view is None or not view.is_valid(self._backend.clock()):
            return None
        return (await self.sessions()).begin(view.id)

    async def sessions(self) -> Sessions:
        """The sessions of browsers. Raises QueueUnavailable, SecretUnavailable."""
        if self._sessions is None:
            keys = await self._backend.keys()
            self._sessions = Sessions(keys.secret_of(PURPOSE), clock=self._backend.clock)
        return self._sessions

    async def _bearer(self, header: str) -> Principal:
        scheme, _, key = header.partition(" ")
        if scheme.lower() != "bearer":
            raise _unauthenticated("the Authorization header is not a bearer's")
        view = await self._checked(key.strip())
        if view is None or not view.is_valid(self._backend.clock()):
            raise _unauthenticated("the API key is not valid")
        return Principal(name=view.id, scopes=frozenset(view.scopes))

    async def _of_session(self, cookie: str) -> KeyView | None:
        """The key that a session was begun with, where both still open something."""
        session: Session | None = (await self.sessions()).read(cookie)
        if session is None:
            return None
        now = self._time()
        until, view = self._remembered.get(session.key_id, (0.0, None))
        if view is None or now >= until:
            keys = await self._backend.keys()
            view = await keys.get(session.key_id)
            if view is not None and view.is_valid(self._backend.clock()):
                await self._remember(session.key_id, view, keys)
        return view if view is not None and view.is_valid(self._backend.clock()) else None

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
        if view is not None and view.is_valid(self._backend.clock()):
            await self._remember(key, view, keys)
        return view

    async def _remember(self, name: str, view: KeyView, keys: KeyStore) -> None:
        with suppress(SQLAlchemyError):  # a full disk does not lock anybody out
            await keys.used(view)
        if len(self._remembered) >= MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[name] = (self._time() + REMEMBERED_SECONDS, view)


class Needs:
    """What a route needs: a dependency that refuses who has not this scope."""

    def __init__(self, scope: Scope) -> None:
        self.scope = scope

    async def __call__(self, request: Request) -> Principal:
        gate: Gate = request.state.gate
        principal = await gate.principal(request)
        request.state.principal = principal
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


def names_of(settings: Settings) -> frozenset[str] | None:
    """By which names a service on loopback may be called without a key; None for one that others reach, whose operator
    has left it to what stands in front."""
    if not is_loopback(settings.host):
        return None
    given = (settings.allowed_hosts or "").split(",")
    return frozenset(name.strip().lower() for name in (*given, settings.host) if name.strip())


def refuse_other_names(request: Request, names: frozenset[str]) -> None:
    """A page whose own name was made to lead to this machine (DNS rebinding) is of the same site to its browser, but it
    calls the service by that name. Raises OtherName."""
    host = request.headers.get("host", "").lower()
    name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
    if name and name not in names and not is_loopback(name):
        raise OtherName


def refuse_other_sites(request: Request) -> None:
    """A page of another site that a person has open reaches this service as well: without a key on loopback, and with
    the person's session elsewhere. Raises OtherSite where it would change something.

    Browsers say whose page asks in ``Sec-Fetch-Site``, but not to an address on plain HTTP beyond loopback; there the
    ``Origin`` says it.
    """
    if request.method in ("GET", "HEAD"):
        return
    site = request.headers.get("sec-fetch-site")
    if site is None:
        origin = request.headers.get("origin")
        host = request.headers.get("host", "").lower()
        is_other = origin is not None and origin.partition("://")[2].lower() != host
    else:
        is_other = site not in ("same-origin", "none")
    if is_other:
        raise OtherSite
