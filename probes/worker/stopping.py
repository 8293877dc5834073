"""How a worker is ended: drained by the first request, stopped by the second, or when the time to drain is over."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue

DRAINS = "told to stop: it ends its point and takes no other; told again, it stops at once"
LEAVES = "told to stop at once"


class Stopping:
    """Asked once, the worker finishes its point and takes no other; asked twice, it gives the point back and leaves.

    Args:
        drain_timeout_seconds: when draining counts as asked twice; None: never.
    """

    def __init__(self, drain_timeout_seconds: float | None = None) -> None:
        self._timeout = drain_timeout_seconds
        self._ends_at: float | None = None
        self._drain, self._now = threading.Event(), threading.Event()

    @property
    def draining(self) -> bool:
        return self._drain.is_set()

    @property
    def now(self) -> bool:
        if self._ends_at is not None and time.monotonic() >= self._ends_at:
            self._now.set()
        return self._now.is_set()

    def ask(self) -> None:
        """Drain; the second time, stop."""
        if self._drain.is_set():
            self._now.set()
            return
        if self._timeout is not None:
            self._ends_at = time.monotonic() + self._timeout
        self._drain.set()

    def wait_for_drain(self, seconds: float) -> None:
        """Wait so long, or until asked."""
        self._drain.wait(seconds)

    def wait_for_end(self, seconds: float) -> None:
        """Wait so long, or until there is no more time: whoever drains still waits for the service."""
        left = seconds if self._ends_at is None else min(seconds, max(0.0, self._ends_at - time.monotonic()))
        # In parts, since the first request meanwhile sets a clock.
        end = time.monotonic() + left
        while not self.now and (rest := end - time.monotonic()) > 0:
            self._now.wait(min(rest, 0.5))


@contextmanager
def on_signals(stopping: Stopping, say: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """SIGTERM and SIGINT ask; to be called in the main thread. Each is answered with a line.

    A handler may come while that thread is inside one of the locks that `Stopping.ask` needs, and would wait for it for
    ever: it only leaves a note (`queue.SimpleQueue.put` may be interrupted by itself), and another thread asks.
    """
    notes: SimpleQueue[bool] = SimpleQueue()

    def listen() -> None:
        while notes.get():
            stopping.ask()
            with suppress(OSError):  # nobody reads any more, and the next signal is heard all the same
                say(LEAVES if stopping.now else DRAINS)

    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: notes.put(True)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        notes.put(False)
        listener.join()
