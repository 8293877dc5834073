"""Work that no service orders: what a process is, what befalls it, and what it must not be able to do."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from ctxplan.planning import Planner
from estimator.calibration.document import Calibration


def pid(_: Planner) -> int:
    return os.getpid()


def environment(_: Planner) -> dict[str, str]:
    return dict(os.environ)


def calibration(planner: Planner) -> Calibration:
    return planner.calibration


def talkative(_: Planner) -> str:
    print("what no answer is")  # noqa: T201 - as a library might
    return "the answer"


def sleep(_: Planner, seconds: float) -> None:
    time.sleep(seconds)


def write_later(_: Planner, file: Path, seconds: float) -> None:
    time.sleep(seconds)
    file.touch()


def die(_: Planner) -> NoReturn:
    os._exit(3)


def fail(_: Planner, *, why: str) -> NoReturn:
    raise ValueError(why)


def given(_: Planner, what: object) -> object:
    return what


def _refuse() -> NoReturn:
    raise MemoryError


class Unreadable:
    """Can be sent, and not be read."""

    def __reduce__(self) -> tuple[Callable[[], NoReturn], tuple[()]]:
        return _refuse, ()
