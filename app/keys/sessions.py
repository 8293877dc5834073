"""A browser's session: what its cookie holds in place of a key, sealed so that nobody else can write it.

It names the key that was shown, until when it holds, and a number of its own. The key itself is in no cookie, and
opens nothing more through a session than it does by itself: revoked, expired or rotated, it ends its sessions too.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

LIFE = timedelta(hours=12)
MAX_COOKIE = 512
MAX_ENDED = 10_000
"""Sessions that were ended before their time are remembered by the process that ended them; so many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """Who a browser is, as its cookie says. ``key_id``: of the key that was shown; ``number``: the session's own."""

    key_id: str
    until: datetime
    number: str


class Sessions:
    """Begins, reads and ends sessions.

    Args:
        secret: what they are sealed with, the same for all replicas of a service.
    """

    def __init__(self, secret: bytes, *, clock: Callable[[], datetime]) -> None:
        self._secret = secret
        self._clock = clock
        self._ended: dict[str, datetime] = {}

    def begin(self, key_id: str) -> str:
        """The cookie of a new session, `LIFE` long."""
        until = int((self._clock() + LIFE).timestamp())
        body = json.dumps([key_id, until, secrets.token_urlsafe(12)], separators=(",", ":"))
        said = base64.urlsafe_b64encode(body.encode()).decode().rstrip("=")
        return f"{said}.{self._seal(said)}"

    def read(self, cookie: str) -> Session | None:
        """What a cookie says; None where it was not written here, is over, or was ended."""
        said, _, seal = cookie[:MAX_COOKIE].partition(".")
        if not hmac.compare_digest(self._seal(said).encode(), seal.encode("utf-8", "replace")):
            return None
        key_id, until, number = json.loads(base64.urlsafe_b64decode(said + "=" * (-len(said) % 4)))
        session = Session(key_id=key_id, until=datetime.fromtimestamp(until, UTC), number=number)
        return session if self._clock() < session.until and number not in self._ended else None

    def end(self, cookie: str) -> None:
        """Let a cookie open nothing any more, here; a copy of it too. One that is none is passed over."""
        session = self.read(cookie)
        if session is None:
            return
        now = self._clock()
        if len(self._ended) >= MAX_ENDED:
            self._ended = {number: until for number, until in self._ended.items() if now < until}
        if len(self._ended) >= MAX_ENDED:
            self._ended.pop(next(iter(self._ended)))
        self._ended[session.number] = session.until

    def _seal(self, said: str) -> str:
        return hmac.new(self._secret, said.encode("utf-8", "replace"), hashlib.sha256).hexdigest()
