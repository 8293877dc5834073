"""The other side of `app.apart`: ``python -m app.apart_process`` does what standard input orders, one after another,
and ends with it."""

from __future__ import annotations

import os
import pickle
import signal
import struct
import sys
import traceback
from contextlib import suppress
from typing import IO, Any

if __name__ == "__main__":
    # The service is told to stop, and ends this process when it has done what it was asked. Before it imports more.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)

from app import work as _work  # noqa: F401 - what will be asked for is there when the first question comes
from ctxplan import Planner
from estimator.errors import CtxplanError

HEAD = struct.Struct(">Q")
"""Before each message, on either way: its length."""
MOST_SECONDS = 90
"""The service ends sooner what takes too long; one that was killed does not."""
NICE = 5
"""Where there is one core for all, answers that take a fraction of a millisecond go first."""


def main() -> None:
    """Work until nobody orders anything any more."""
    with suppress(OSError):
        os.nice(NICE)
    # Whatever prints, prints elsewhere.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    # It is given every model's shape, and looks nothing up.
    planner = Planner(offline=True, allow_local=False)
    with answers, suppress(BrokenPipeError):
        while (order := _read(sys.stdin.buffer)) is not None:
            signal.alarm(MOST_SECONDS)  # nobody may be left who would end it
            answer = pickle.dumps(_done(planner, order), protocol=pickle.HIGHEST_PROTOCOL)
            answers.write(HEAD.pack(len(answer)))
            answers.write(answer)
            answers.flush()
            signal.alarm(0)


def _read(orders: IO[bytes]) -> bytes | None:
    head = orders.read(HEAD.size)
    if len(head) < HEAD.size:
        return None
    (length,) = HEAD.unpack(head)
    order = orders.read(length)
    return order if len(order) == length else None


def _done(planner: Planner, order: bytes) -> tuple[bool, Any]:
    """Whether it was done, and the answer; else the error's kind, arguments and attributes."""
    try:
        calibration, work, given, named = pickle.loads(order)  # noqa: S301 - from the process that has started this one
        if calibration is not None:
            planner.calibration = calibration
        return True, work(planner, *given, **named)
    except CtxplanError as error:
        return False, (type(error), error.args, error.__dict__)
    except Exception:  # whatever it is, the service says so, and this process goes on
        return False, (None, (traceback.format_exc(),), {})


if __name__ == "__main__":
    main()
