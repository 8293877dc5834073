"""Keys in the database: made, listed, replaced, revoked, and checked."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import func, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.database.engine import Database
from app.database.models import ApiKeyModel
from app.keys.errors import InvalidKeyRequest, UnknownKey
from app.keys.form import is_key, new_key, prefix_of

SCOPES = ("plan", "measure", "work", "admin")
MAX_NAME = 200
MAX_LIFE = timedelta(days=3650)
USED_EVERY = timedelta(minutes=1)
"""How exact ``last_used_at`` is: a write for every request would cost more than the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyView:
    """A key as anyone may see it: never the key itself."""

    id: str
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None

    def is_valid(self, now: datetime) -> bool:
        """Whether it opens anything."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """A new key. Whoever asked for it sees it now, and nobody again."""

    key: str = field(repr=False)
    view: KeyView


class KeyStore:
    """The keys of one database. ``secret`` is `app.keys.secret.read_secret`'s."""

    def __init__(self, database: Database, *, secret: bytes, clock: Callable[[], datetime]) -> None:
        self._database = database
        self._secret = secret
        self._clock = clock

    async def create(self, name: str, scopes: Iterable[str], *, expires_in: timedelta | None = None) -> Made:
        """Make a key. Raises InvalidKeyRequest for a name, a scope or a life that is none."""
        wanted = _scopes(scopes)
        if not 1 <= len(name) <= MAX_NAME or not name.isprintable():
            raise InvalidKeyRequest("is not a name", key="name", allowed=f"1 to {MAX_NAME} printable characters")
        if expires_in is not None and not timedelta(0) < expires_in <= MAX_LIFE:
            raise InvalidKeyRequest("is no life of a key", key="expires", allowed="more than 0, up to 3650 days")
        async with self._database.write_session() as session:
            return await self._add(session, name, wanted, expires_in)

    async def list(self) -> Sequence[KeyView]:
        """Every key that was ever made, oldest first."""
        async with self._database.read_session() as session:
            rows = await session.execute(select(ApiKeyModel).order_by(ApiKeyModel.created_at, ApiKeyModel.id))
            return tuple(_view(row) for row in rows.scalars())

    async def rotate(self, id: str, *, grace: timedelta = timedelta(0)) -> Made:
        """Make a key of the same name, scopes and life, and let the old one go on for the grace alone.

        Raises:
            UnknownKey: no key begins so. InvalidKeyRequest: it is revoked or has expired, or the grace is negative.
        """
        if grace < timedelta(0):
            raise InvalidKeyRequest("is no time", key="grace", allowed="0 or more")
        async with self._database.write_session() as session:
            row, now = await _find(session, id), self._clock()
            if not _view(row).is_valid(now):
                raise InvalidKeyRequest(f"key {row.id} opens nothing any more", key="id", allowed="a key that is valid")
            life = None if row.expires_at is None else row.expires_at - row.created_at
            made = await self._add(session, row.name, tuple(row.scopes), life)
            if grace:
                row.expires_at = min(row.expires_at or now + grace, now + grace)
            else:
                row.revoked_at = now
            return made

    async def revoke(self, id: str) -> KeyView:
        """Let a key open nothing any more; one that was revoked stays as it is. Raises UnknownKey."""
        async with self._database.write_session() as session:
            row = await _find(session, id)
            if row.revoked_at is None:
                row.revoked_at = self._clock()
            return _view(row)

    async def count_valid(self) -> int:
        """How many keys open something."""
        now = self._clock()
        valid = select(func.count()).where(
            ApiKeyModel.revoked_at.is_(None), or_(ApiKeyModel.expires_at.is_(None), ApiKeyModel.expires_at > now)
        )
        async with self._database.read_session() as session:
            return int((await session.execute(valid)).scalar_one())

    async def find(self, key: str) -> KeyView | None:
        """The row of a key that a request brought, whether it is valid or not; None where there is none."""
        if not is_key(key):
            return None
        async with self._database.read_session() as session:
            found = await session.execute(select(ApiKeyModel).where(ApiKeyModel.prefix == prefix_of(key)))
            row = found.scalar_one_or_none()
        # Compared in either case and in constant time: how long it takes says neither whether a prefix exists nor how
        # much of a key was right.
        same = hmac.compare_digest(row.hmac if row else "0" * 64, self._hmac(key))
        return _view(row) if row is not None and same else None

    async def get(self, id: str) -> KeyView | None:
        """The key of an id, whether it is valid or not; None where there is none."""
        async with self._database.read_session() as session:
            row = await session.get(ApiKeyModel, id)
            return None if row is None else _view(row)

    def secret_of(self, purpose: str) -> bytes:
        """Another secret, of 32 bytes, for something else than keys: from it, the keys' own cannot be told."""
        return hmac.new(self._secret, f"ctxplan {purpose}".encode(), hashlib.sha256).digest()

    async def used(self, view: KeyView) -> None:
        """Note that a key was used, to the minute."""
        now = self._clock()
        if view.last_used_at is not None and now - view.last_used_at < USED_EVERY:
            return
        async with self._database.write_session() as session:
            await session.execute(update(ApiKeyModel).where(ApiKeyModel.id == view.id).values(last_used_at=now))

    async def _add(self, session: AsyncSession, name: str, scopes: Sequence[str], expires_in: timedelta | None) -> Made:
        key, now = new_key(), self._clock()
        row = ApiKeyModel(
            id=secrets.token_hex(8),
            name=name,
            prefix=prefix_of(key),
            hmac=self._hmac(key),
            scopes=list(scopes),
            created_at=now,
            last_used_at=None,
            expires_at=None if expires_in is None else now + expires_in,
            revoked_at=None,
        )
        session.add(row)
        await session.flush()
        return Made(key=key, view=_view(row))

    def _hmac(self, key: str) -> str:
        return hmac.new(self._secret, key.encode(), hashlib.sha256).hexdigest()


async def _find(session: AsyncSession, id: str) -> ApiKeyModel:
    """The key whose id, or whose shown prefix, is this or begins so."""
    allowed = "an id that ctxplan keys list shows"
    known = (await session.execute(select(ApiKeyModel))).scalars()
    found = [row for row in known if id and (row.id.startswith(id) or row.prefix == id)]
    if len(found) != 1:
        what = "begins several ids" if found else "is no key"
        raise UnknownKey(what, key="id", allowed=allowed)
    return found[0]


def _scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    wanted = tuple(dict.fromkeys(scopes))
    unknown = [scope for scope in wanted if scope not in SCOPES]
    if unknown or not wanted:
        what = f'"{unknown[0][:80]}" is no scope' if unknown else "a key without a scope opens nothing"
        raise InvalidKeyRequest(what, key="scopes", allowed=", ".join(SCOPES))
    return tuple(scope for scope in SCOPES if scope in wanted)


def _view(row: ApiKeyModel) -> KeyView:
    return KeyView(
        id=row.id,
        name=row.name,
        prefix=row.prefix,
        scopes=tuple(row.scopes),
        created_at=row.created_at,
        last_used_at=row.last_used_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
