"""When to ask again, and after how long."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

ASK_AGAIN = frozenset({429, 502, 503, 504})
"""Too many requests, a service that starts or has lost its database, a gateway without its service."""
NOT_TAKEN = frozenset({429})
"""After these the service has done nothing: any request may be sent again."""

NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
CUT_OFF = (httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError, httpx.CloseError)
"""An idle connection that the service has closed meanwhile looks like this. A read that times out is not among them:
what was too slow once would be asked of a busy service again and again."""

Outcome = httpx.Response | httpx.RequestError


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often to ask again and how long to wait: exponential, with full jitter, or as the service says.

    Args:
        most: times that a request is sent again; 0 for never.
        first_seconds: the longest first wait, which doubles each time. longest_seconds: no wait grows beyond it.
        longest_asked_seconds: a ``Retry-After`` beyond it is not waited for; the error says it instead.
        dice: a number in [0, 1). clock: the time, for a ``Retry-After`` that is a date.
    """

    most: int = 3
    first_seconds: float = 0.5
    longest_seconds: float = 8.0
    longest_asked_seconds: float = 60.0
    dice: Callable[[], float] = field(default=random.random, repr=False)
    clock: Callable[[], datetime] = field(default=_now, repr=False)

    def wait_seconds(self, outcome: Outcome, *, sent: int, repeatable: bool) -> float | None:
        """Seconds to wait before the request is sent again; None where it is not.

        Args:
            sent: how often it has been sent. repeatable: whether a second one that arrives changes nothing more.
        """
        if sent > self.most or not _may_be_sent_again(outcome, repeatable):
            return None
        asked = retry_after_seconds(outcome, self.clock) if isinstance(outcome, httpx.Response) else None
        if asked is not None:
            return asked if asked <= self.longest_asked_seconds else None
        # Full jitter: many clients that lost the same service do not come back at the same moment.
        return self.dice() * min(self.longest_seconds, self.first_seconds * 2.0 ** (sent - 1))


def retry_after_seconds(response: httpx.Response, clock: Callable[[], datetime] = _now) -> float | None:
    """What the ``Retry-After`` header asks for, in seconds or as a date; None without one that can be read."""
    header = response.headers.get("retry-after", "").strip()
    if header.isascii() and header.isdigit():
        return float(header)
    try:
        at = parsedate_to_datetime(header)
    except (ValueError, TypeError):
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - clock()).total_seconds())


def _may_be_sent_again(outcome: Outcome, repeatable: bool) -> bool:
    if isinstance(outcome, httpx.Response):
        return outcome.status_code in (ASK_AGAIN if repeatable else NOT_TAKEN)
    return isinstance(outcome, (*NEVER_SENT, *CUT_OFF) if repeatable else NEVER_SENT)
