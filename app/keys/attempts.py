"""How often an address may show keys that are none."""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from time import monotonic

MOST = 10
SECONDS = 60.0
MOST_OF_ALL = 200
"""Of all addresses together, in the same time: many machines guess no faster."""
MAX_ADDRESSES = 4096


class Attempts:
    """Counts what failed within the last `SECONDS`. One of a process: a guess at 220 bits needs no exact count."""

    def __init__(self, *, time: Callable[[], float] = monotonic) -> None:
        self._time = time
        self._all: deque[float] = deque()
        self._by_address: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_seconds(self, address: str) -> int:
        """After how many seconds an address may try again; 0 where it may now."""
        now = self._time()
        own = self._by_address.get(_network(address), deque())
        waits = [_wait(own, MOST, now), _wait(self._all, MOST_OF_ALL, now)]
        return math.ceil(max(waits))

    def failed(self, address: str) -> None:
        """Note that an address showed a key that is none."""
        now, network = self._time(), _network(address)
        own = self._by_address.setdefault(network, deque())
        self._by_address.move_to_end(network)
        if len(self._by_address) > MAX_ADDRESSES:
            self._by_address.popitem(last=False)
        for listed in (own, self._all):
            _forget(listed, now)
            listed.append(now)


def _wait(failures: deque[float], most: int, now: float) -> float:
    _forget(failures, now)
    return failures[-most] + SECONDS - now if len(failures) >= most else 0.0


def _forget(failures: deque[float], now: float) -> None:
    while failures and failures[0] <= now - SECONDS:
        failures.popleft()


def _network(address: str) -> str:
    """The address; of an IPv6 one the network of 64 bits, which one machine has whole."""
    try:
        found = ip_address(address)
    except ValueError:
        return address[:64]
    return str(int(found) >> 64) + "::/64" if isinstance(found, IPv6Address) else str(found)
