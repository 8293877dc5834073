"""Stands between the workers and the services, and loses answers: a service has done what it was asked, and whoever
asked never hears of it."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any

PIECE = 65536
KINDS = (
    ("result", re.compile(rb"POST /v1/probe-jobs/\d+/leases/\d+/result ")),
    ("lease", re.compile(rb"POST /v1/probe-jobs/leases ")),
    ("submit", re.compile(rb"POST /v1/probe-jobs ")),
)
DONE = re.compile(rb"HTTP/1.1 20[01] ")


class Proxy:
    """A port of this machine that leads to others, to one after another of those that answer; for use in ``with``.

    Attributes:
        port: the port. lost: answers that were lost, by what had been asked.
    """

    def __init__(self, *upstreams: int) -> None:
        self.port = 0
        self.lost: Counter[str] = Counter()
        self._upstreams = deque(upstreams)
        self._armed: Counter[str] = Counter()
        self._meanwhile: list[tuple[str, Callable[[int], None], float]] = []
        self._lock = Lock()
        self._listening = Event()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = Thread(target=self._run, name="proxy")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def lose(self, what: str) -> None:
        """Lose one more answer: to the next request of this kind that does what it asks."""
        with self._lock:
            self._armed[what] += 1

    def let_be(self) -> None:
        """Lose no more answers."""
        with self._lock:
            self._armed.clear()

    def meanwhile(self, what: str, do: Callable[[int], None], *, seconds: float) -> None:
        """While the next request of this kind is being answered, so long after it came, do something with the port that
        it went to: in the proxy's own thread."""
        with self._lock:
            self._meanwhile.append((what, do, seconds))

    def __enter__(self) -> Proxy:
        self._thread.start()
        self._listening.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._serve())
        finally:
            self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        async with server:
            await self._stop.wait()
            server.close()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        found = await self._upstream()
        if found is None:  # they are away: who asks learns that as it would without us
            writer.transport.abort()
            return
        port, upstream = found
        connection = _Connection(proxy=self, client=(reader, writer), upstream=upstream, port=port)
        try:
            await _first_of(connection.forth(), connection.back())
        finally:
            for end in (writer, upstream[1]):
                end.transport.abort()

    async def _upstream(self) -> tuple[int, Streams] | None:
        self._upstreams.rotate()
        for port in tuple(self._upstreams):
            with suppress(OSError):
                return port, await asyncio.open_connection("127.0.0.1", port)
        return None

    def _asked_for(self, what: str | None, port: int) -> None:
        """A request has gone to a service."""
        with self._lock:
            found = next((one for one in self._meanwhile if one[0] == what), None)
            if found is not None:
                self._meanwhile.remove(found)
                self._loop.call_later(found[2], found[1], port)

    def _take(self, what: str | None) -> bool:
        """Whether the answer to this is lost."""
        with self._lock:
            if what is None or not self._armed[what]:
                return False
            self._armed[what] -= 1
            self.lost[what] += 1
            return True


Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Connection:
    """One connection, on which requests come one after another."""

    def __init__(self, *, proxy: Proxy, client: Streams, upstream: Streams, port: int) -> None:
        self._proxy, self._port = proxy, port
        self._client, self._upstream = client, upstream
        self._asked: str | None = None

    async def forth(self) -> None:
        """Requests to the service."""
        with suppress(OSError):
            while piece := await self._client[0].read(PIECE):
                if piece.startswith(b"POST "):
                    self._asked = next((name for name, line in KINDS if line.match(piece)), None)
                    self._proxy._asked_for(self._asked, self._port)
                self._upstream[1].write(piece)
                await self._upstream[1].drain()

    async def back(self) -> None:
        """Answers from the service. One that is lost is the last of its connection."""
        with suppress(OSError):
            while piece := await self._upstream[0].read(PIECE):
                # The status line comes when all is committed.
                if DONE.match(piece) and self._proxy._take(self._asked):
                    return
                self._client[1].write(piece)
                await self._client[1].drain()


async def _first_of(*ways: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.ensure_future(way) for way in ways]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
