"""The trial: the most that is answered, a long time at 70 % of it, a short one at three times as much, and after."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

from benchmarks.load.drive import Answered, Driver
from benchmarks.load.traffic import ESTIMATE, Ask, mixed
from benchmarks.memory import resident_bytes

HELD, TOO_MUCH = 0.7, 3.0
CONNECTIONS = 8
WARM_SECONDS, MAXIMUM_SECONDS, ROUNDS = 5.0, 5.0, 5
TOO_MUCH_SECONDS = 30.0
SHED = (429, 503)
P99_SECONDS = 0.025
GROWTH_BYTES = 16 * 2**20
"""What resident memory may gain between the first and the last fifth of the time."""
RECOVERED_SECONDS = 1.0
"""How soon after the flood's last request was due an estimate has to be answered as before."""
RECOVERY_PATIENCE_SECONDS = 60.0
MEMORY_EVERY = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What was seen.

    Attributes:
        maximum: answers a second, flat out. held: at 70 %. resident: bytes of the service, every five seconds
            of that. flood: of the requests at 300 %, those that could be sent while it lasted. recovery_seconds: from
            when the last of it was due, whatever is still being answered then, to the first estimate that was answered
            within the limit.
    """

    seconds: float
    maximum: float
    held: Sequence[Answered]
    resident: Sequence[int]
    flood: Sequence[Answered]
    recovery_seconds: float

    @property
    def errors(self) -> int:
        """Of the requests at 70 %, those that were not answered with 200."""
        return sum(one.status != 200 for one in self.held)

    @property
    def growth_bytes(self) -> int:
        """How much more is resident in the last fifth of the time than in the first, in the middle of each."""
        fifth = max(1, len(self.resident) // 5)
        first, last = sorted(self.resident[:fifth]), sorted(self.resident[-fifth:])
        return last[len(last) // 2] - first[len(first) // 2]

    @property
    def broken(self) -> list[str]:
        """Promises that were not kept."""
        p99 = quantile([one.seconds for one in self.held if one.kind == ESTIMATE], 0.99)
        other = {one.status for one in self.flood} - {200, *SHED}
        found = [
            (self.errors > 0, f"{self.errors} of {len(self.held)} requests at {HELD:.0%} were not answered"),
            (p99 >= P99_SECONDS, f"99 % of the estimates took up to {p99 * 1000:.1f} ms"),
            (self.growth_bytes > GROWTH_BYTES, f"memory grew by {self.growth_bytes / 2**20:.1f} MiB"),
            (bool(other), f"at {TOO_MUCH:.0%} there were answers with {sorted(other)}"),
            (not any(one.status in SHED for one in self.flood), f"at {TOO_MUCH:.0%} nothing was refused"),
            (self.recovery_seconds > RECOVERED_SECONDS, f"it recovered after {self.recovery_seconds:.1f} s"),
        ]
        return [what for is_broken, what in found if is_broken]


async def trial(port: int, pid: int, *, seconds: float, say: Callable[[str], None]) -> Trial:
    """Run all four parts against a service on this machine.

    Args:
        pid: the service's process. seconds: at 70 %.
    """
    asks, driver = mixed(4000), Driver(port)
    try:
        maximum = await _maximum(driver, asks, say)
        say(f"{seconds:.0f} s at {HELD * maximum:.0f} requests a second")
        resident: list[int] = []

        async def look() -> None:
            resident.append(resident_bytes(pid))

        held = await driver.at_rate(asks, per_second=HELD * maximum, seconds=seconds, each_second=look)
        say(f"{TOO_MUCH_SECONDS:.0f} s at {TOO_MUCH * maximum:.0f} requests a second")
        recovery: list[float] = []

        async def recover(last_due: float) -> None:
            recovery.append(await recovered(port, asks, since=last_due))

        flood = await driver.at_rate(
            asks,
            per_second=TOO_MUCH * maximum,
            seconds=min(TOO_MUCH_SECONDS, seconds),
            each_second=look,
            no_longer=recover,
        )
    finally:
        await driver.close()
    return Trial(
        seconds=seconds,
        maximum=maximum,
        held=held,
        resident=resident[: max(1, int(seconds))][::MEMORY_EVERY],
        flood=flood,
        recovery_seconds=recovery[0],
    )


async def _maximum(driver: Driver, asks: Sequence[Ask], say: Callable[[str], None]) -> float:
    """Answers a second, the median of some rounds: the machine's own pauses are none of the service's."""
    await driver.flat_out(asks, seconds=WARM_SECONDS, connections=CONNECTIONS)
    rates = []
    for _ in range(ROUNDS):
        start = perf_counter()
        found = await driver.flat_out(asks, seconds=MAXIMUM_SECONDS, connections=CONNECTIONS)
        rates.append(sum(one.status == 200 for one in found) / (perf_counter() - start))
    say("at most " + ", ".join(f"{rate:.0f}" for rate in rates) + " requests a second")
    return sorted(rates)[len(rates) // 2]


async def recovered(port: int, asks: Sequence[Ask], *, since: float) -> float:
    """Seconds from a time until an estimate is answered as before, asked one after another on a connection of its own:
    what still waits for one of the flood's is no matter of the service's."""
    estimate = next(ask for ask in asks if ask.kind == ESTIMATE)
    driver = Driver(port, limit=1)
    try:
        while perf_counter() < since + RECOVERY_PATIENCE_SECONDS:
            one = await driver.once(estimate)
            if one.status == 200 and one.seconds < P99_SECONDS:
                break
    finally:
        await driver.close()
    return perf_counter() - since


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that such a share of them does not exceed; infinite where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else float("inf")


def run(port: int, pid: int, *, seconds: float, say: Callable[[str], None]) -> Trial:
    """`trial`, in an event loop of its own."""
    return asyncio.run(trial(port, pid, seconds=seconds, say=say))
