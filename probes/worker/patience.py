"""How long to wait before asking again: exponential, with jitter, or as the service says."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Patience:
    """Waits that grow while the service is away.

    Args:
        first_seconds: the longest first wait, which doubles each time. longest_seconds: no wait grows beyond it.
        dice: a number in [0, 1).
    """

    first_seconds: float = 0.5
    longest_seconds: float = 30.0
    dice: Callable[[], float] = field(default=random.random, repr=False)
    _tried: int = field(default=0, init=False)

    def next_wait_seconds(self, asked: float | None = None) -> float:
        """The next wait; where the service asked for one, at least that, within the longest."""
        longest = min(self.longest_seconds, self.first_seconds * 2.0 ** min(self._tried, 30))
        self._tried += 1
        # Between half and all of it: workers that lost the same service come back apart, and none at once.
        wait = longest * (0.5 + self.dice() / 2)
        return wait if asked is None else max(wait, min(asked, self.longest_seconds))

    def reset(self) -> None:
        """The service has answered."""
        self._tried = 0

    def spread(self, seconds: float) -> float:
        """A wait that the service asked of everybody, so that not everybody comes back at once: up to a fifth more."""
        return seconds * (1 + self.dice() / 5)
