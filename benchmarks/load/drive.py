"""Asks over keep-alive connections, as cheaply as Python can: both sides share the machine.

At a given rate, a request's time counts from when it was due, and not from when a connection was free for it: a service
that stalls is charged for all that it held up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from time import perf_counter

from benchmarks.load.traffic import Ask

LOST = 0
"""The status of a request whose connection broke."""
PATIENCE_SECONDS = 20.0
IDLE_SECONDS = 2.0
"""How long a connection is kept without a request: fewer than the service does, since who asks on one that is just
being closed gets no answer."""


@dataclass(frozen=True, slots=True)
class Answered:
    """One request's end: its kind, its status, and its seconds since it was due at a time.

    Attributes:
        late: how many of the seconds had gone by when it was sent: all connections were taken, or this side was behind.
    """

    kind: str
    status: int
    seconds: float
    at: float
    late: float = 0.0


class Connection(asyncio.Protocol):
    """One keep-alive connection with at most one request on its way."""

    def __init__(self) -> None:
        self._heard = bytearray()
        self._need = -1
        self._status = LOST
        self._waiting: asyncio.Future[int] | None = None
        self._transport: asyncio.Transport | None = None
        self.idle_since = 0.0
        self.gone = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._answer(LOST)
        self.gone.set_result(None)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        if self._need < 0:
            end = self._heard.find(b"\r\n\r\n")
            if end < 0:
                return
            head = bytes(self._heard[:end]).lower()
            self._status = int(head[9:12])
            length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
            self._need = end + 4 + (int(length) if length else 0)
        if len(self._heard) >= self._need:
            self._heard.clear()
            self._need = -1
            self._answer(self._status)

    def ask(self, raw: bytes) -> asyncio.Future[int]:
        """Send, and get the status in time."""
        self._waiting = asyncio.get_running_loop().create_future()
        if self._transport is None:
            self._answer(LOST)
        else:
            self._transport.write(raw)
        return self._waiting

    @property
    def is_open(self) -> bool:
        return self._transport is not None

    def close(self) -> None:
        """Begin to close it; ``gone`` is its end."""
        if self._transport is not None:
            self._transport.abort()

    def _answer(self, status: int) -> None:
        waiting = self._waiting
        if waiting is not None and not waiting.done():
            waiting.set_result(status)


@dataclass(slots=True)
class Driver:
    """Connections to one service.

    Args:
        limit: of connections; who finds none free waits for one, and its time runs.
    """

    port: int
    limit: int = 256
    _free: list[Connection] = field(default_factory=list)

    async def flat_out(self, asks: Sequence[Ask], *, seconds: float, connections: int) -> list[Answered]:
        """Each connection asks again as soon as it has its answer."""
        found: list[Answered] = []
        end = perf_counter() + seconds
        dice = Random(2)

        async def one() -> None:
            while perf_counter() < end:
                found.append(await self._exchange(dice.choice(asks), perf_counter()))

        await asyncio.gather(*(one() for _ in range(connections)))
        return found

    async def at_rate(
        self,
        asks: Sequence[Ask],
        *,
        per_second: float,
        seconds: float,
        each_second: Callable[[], Awaitable[None]],
        no_longer: Callable[[float], Awaitable[None]] | None = None,
    ) -> list[Answered]:
        """Poisson arrivals, whatever becomes of those before.

        Args:
            no_longer: called with the time at which the last was due, once nothing more is. What has not been sent by
                then never is, and is not among the answers; what has been is still being answered meanwhile.
        """
        found: list[Answered] = []
        running: set[asyncio.Task[None]] = set()
        unsent: deque[tuple[Ask, float]] = deque()
        dice = Random(3)
        start = perf_counter()
        due, last, tick = start, start, start + 1

        async def those_from(ask: Ask, due: float) -> None:
            found.append(await self._exchange(ask, due))
            while unsent:
                found.append(await self._exchange(*unsent.popleft()))

        while due < start + seconds:
            wait = due - perf_counter()
            # A shorter sleep than the loop's own grain would spin.
            await asyncio.sleep(wait if wait > 0.001 else 0)
            ask = dice.choice(asks)
            if len(running) < self.limit:
                task = asyncio.create_task(those_from(ask, due))
                running.add(task)
                task.add_done_callback(running.discard)
            else:
                unsent.append((ask, due))
            last = due
            due += dice.expovariate(per_second)
            if due > tick:
                tick += 1
                await each_second()
        if no_longer is not None:
            unsent.clear()
            await no_longer(last)
        if running:
            await asyncio.wait(running, timeout=2 * PATIENCE_SECONDS)
        return found

    async def once(self, ask: Ask) -> Answered:
        """One request, now."""
        return await self._exchange(ask, perf_counter())

    async def close(self) -> None:
        """Close what is open."""
        for connection in self._free:
            connection.close()
            await connection.gone

    async def _exchange(self, ask: Ask, due: float) -> Answered:
        try:
            connection = await self._connection()
        except OSError:
            return Answered(ask.kind, LOST, perf_counter() - due, due)
        late = perf_counter() - due
        try:
            status = await asyncio.wait_for(connection.ask(ask.raw(self.port)), PATIENCE_SECONDS)
        except TimeoutError:
            connection.close()
            status = LOST
        if connection.is_open:
            connection.idle_since = perf_counter()
            self._free.append(connection)
        return Answered(ask.kind, status, perf_counter() - due, due, late)

    async def _connection(self) -> Connection:
        while self._free:
            connection = self._free.pop()
            if not connection.is_open:
                continue
            if perf_counter() - connection.idle_since < IDLE_SECONDS:
                return connection
            connection.close()
        _, made = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", self.port)
        return made
