from __future__ import annotations

import os
import signal

from probes.worker.stopping import Stopping, on_signals
from tests.probes.common import wait_for


def test_a_signal_that_comes_while_the_worker_begins_to_wait_is_heard() -> None:
    """The handler runs in the thread that holds the lock of the waiting; it may not wait for that itself."""
    stopping = Stopping()
    with on_signals(stopping):
        with stopping._drain._cond:  # type: ignore[attr-defined]
            os.kill(os.getpid(), signal.SIGTERM)
        wait_for(lambda: stopping.draining, "the worker drains")
        assert not stopping.now
        os.kill(os.getpid(), signal.SIGINT)
        wait_for(lambda: stopping.now, "the worker stops")


def test_signals_are_the_processs_own_again_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with on_signals(Stopping()):
        assert signal.getsignal(signal.SIGTERM) is not before
    assert signal.getsignal(signal.SIGTERM) is before
