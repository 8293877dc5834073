"""A listening socket whose connections answer at once."""

from __future__ import annotations

import socket


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen; port 0 takes a free one.

    The socket is made as TCP by name, not by default: asyncio turns Nagle's algorithm off only on sockets
    that say so, and with it on, each answer of two writes waits for the client's delayed acknowledgement, 40
    ms.

    Raises:
        OSError: the address is in use, or not one of this machine.
    """
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except OSError:
        listening.close()
        raise
    return listening
