"""The ``ctxplan`` command, with a note of everything that it opens, connects to, starts, imports and unpickles: as a
program, with the file for its notes in WATCHED_NOTES."""

from __future__ import annotations

import os
import sys
from typing import Any

EVENTS = {
    "open": "open",
    "import": "import",
    "pickle.find_class": "unpickle",
    "socket.connect": "connect",
    "subprocess.Popen": "start",
    "os.exec": "start",
    "os.posix_spawn": "start",
    "os.system": "start",
    "ctypes.dlopen": "open",
}


def watch(file: str) -> None:
    """Note each event as ``kind, tab, what`` from now on; nothing can take the hook away again."""
    notes = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        kind = EVENTS.get(event)
        if kind is not None:
            os.write(notes, f"{kind}\t{told(kind, arguments)}\n".encode(errors="backslashreplace"))

    sys.addaudithook(hook)


def told(kind: str, arguments: tuple[Any, ...]) -> str:
    """What an event is about, in a line."""
    if kind == "connect":
        address = arguments[1]
        return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else repr(address)
    if kind == "unpickle":
        return ".".join(map(str, arguments))
    what = os.fsdecode(arguments[0]) if isinstance(arguments[0], bytes) else str(arguments[0])
    return what.replace("\n", "\\n")


if __name__ == "__main__":
    watch(os.environ["WATCHED_NOTES"])
    from app.cli import main

    main()
