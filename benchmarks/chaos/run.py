"""One run: all jobs measured on one database, whatever happens, and the verdict."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from benchmarks.chaos.faults import strike
from benchmarks.chaos.plan import faults_of
from benchmarks.chaos.verdict import Verdict, judge
from benchmarks.chaos.world import Setup, World, world

TICK_SECONDS = 0.05


def run(setup: Setup, folder: Path, say: Callable[[str], None]) -> Verdict:
    """Live through it and judge. Raises TimeoutError where it does not end.

    Args:
        folder: an empty one, for all that the run writes but PostgreSQL's own.
    """
    with world(setup, folder) as one:
        begun = time.monotonic()
        _live(one, say)
        return judge(one, seconds=time.monotonic() - begun)


def _live(one: World, say: Callable[[str], None]) -> None:
    setup, end = one.setup, time.monotonic() + one.setup.limit_seconds
    for service in one.services:
        service.start()
        service.wait_until_ready()
    one.submit()
    faults = deque(faults_of(setup.kinds, seed=setup.seed, jobs=setup.jobs, workers=setup.workers))
    while faults or one.is_waiting() or not one.all_ended():
        if time.monotonic() > end:
            raise TimeoutError(f"not done after {setup.limit_seconds:.0f} s; {one.folder} has what was said")
        one.do_what_is_due()
        one.revive()
        if faults and one.measured() >= faults[0].after:
            fault, what = faults[0], strike(one, faults[0])
            if what is not None:
                faults.popleft()
                one.struck[fault.kind] += 1
                say(f"{setup.database}: {one.measured()} measured: {fault.kind.value.replace('_', ' ')}: {what}")
            elif not one.is_waiting() and one.all_ended():
                faults.popleft()
                one.missed += 1
        time.sleep(TICK_SECONDS)
    one.leave()
