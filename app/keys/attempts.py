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
"""Of all addresses together, in the same time: beyond that, whoever shows one more is answered later."""
SLOW_SECONDS = 1.0
MAX_ADDRESSES = 4096


class Attempts:
    """Counts what failed within the last `SECONDS`. One of a process: a guess at 220 bits needs no exact count.

    An address is refused for its own failures alone: what others do keeps nobody out who has a key.
    """

    def __init__(self, *, time: Callable[[], float] = monotonic) -> None:
        self._time = time
        self._all: deque[float] = deque(maxlen=MOST_OF_ALL)
        self._by_address: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_seconds(self, address: str) -> int:
        """After how many seconds an address may try again; 0 where it may now."""
        now = self._time()
        own = self._by_address.get(network_of(address), deque())
        return math.ceil(own[0] + SECONDS - now) if _is_full(own, MOST, now) else 0

    def failed(self, address: str) -> float:
        """Note that an address showed a key that is none.

        Returns:
            For how many seconds its answer is to be held back: 0, unless all addresses together fail too often.
        """
        now, network = self._time(), network_of(address)
        is_flood = _is_full(self._all, MOST_OF_ALL, now)
        own = self._by_address.setdefault(network, deque(maxlen=MOST))
        self._by_address.move_to_end(network)
        if len(self._by_address) > MAX_ADDRESSES:
            self._by_address.popitem(last=False)
        for listed in (own, self._all):
            listed.append(now)
        return SLOW_SECONDS if is_flood else 0.0


def _is_full(newest: deque[float], most: int, now: float) -> bool:
    """Whether so many failures are of the last `SECONDS`."""
    return len(newest) >= most and newest[0] > now - SECONDS


def network_of(address: str) -> str:
    """What counts as one caller: the address; of an IPv6 one the network of 64 bits, which one machine has whole."""
    try:
        found = ip_address(address)
    except ValueError:
        return address[:64]
    if isinstance(found, IPv6Address):
        # Of IPv4, where both are listened to by one socket: all of them would be one network.
        return str(found.ipv4_mapped or f"{int(found) >> 64}::/64")
    return str(found)
