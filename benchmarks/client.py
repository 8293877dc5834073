"""A client that costs the machine little: keep-alive connections, one prepared request, answers read by their
length."""

from __future__ import annotations

import asyncio
from time import perf_counter

CONNECTIONS = 4


def requests_per_second(port: int, path: str, body: bytes, *, requests: int) -> float:
    """Send ``requests`` POST requests over a few connections, each one after its answer, and say how many a
    second."""
    return asyncio.run(_drive(port, _request(port, path, body), requests))


async def _drive(port: int, request: bytes, requests: int) -> float:
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(CONNECTIONS)]
    start = perf_counter()
    await asyncio.gather(*(_exchange(r, w, request, requests // CONNECTIONS) for r, w in connections))
    seconds = perf_counter() - start
    for _, writer in connections:
        writer.close()
    return requests // CONNECTIONS * CONNECTIONS / seconds


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes, times: int) -> None:
    for _ in range(times):
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(f"the server answered {head.splitlines()[0]!r}")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        await reader.readexactly(int(length))


def _request(port: int, path: str, body: bytes) -> bytes:
    lines = (
        f"POST {path} HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + body
