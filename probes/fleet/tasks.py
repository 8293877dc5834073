"""What of the fleet runs inside of Ray: the task that is one life, and the actor by which lives hear that it drains.

Cancelling would not do for that: Ray takes a cancelled task for ended before it has given back its point.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from probes.fleet.life import Event, LifeOrder, live
from probes.worker.stopping import Stopping

MOST_LISTENERS = 10_000


class Control:
    """How often the fleet was asked to stop. An asyncio actor, so that every life can wait at it."""

    def __init__(self) -> None:
        self._level = 0
        self._changed = asyncio.Condition()

    async def ask(self, level: int) -> int:
        """Raise the level to this one, at least; 0 asks for nothing."""
        async with self._changed:
            self._level = max(self._level, level)
            self._changed.notify_all()
            return self._level

    async def beyond(self, level: int) -> int:
        """The level, once it is higher than this one."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._level > level)
            return self._level


def life(order: LifeOrder, control: Any) -> Iterator[Event]:
    """One life on this node."""
    import ray

    def watch(stopping: Stopping) -> None:
        heard = 0
        while heard < 2:
            try:
                level = ray.get(control.beyond.remote(heard))
            except ray.exceptions.RayError:  # the driver is gone, and Ray ends its tasks
                return
            for _ in range(level - heard):
                stopping.ask()
            heard = level

    yield from live(order, watch=watch)


def task_of(ray: Any) -> Any:
    """The life as Ray's remote function: its events come one by one, and Ray never runs it twice."""
    # A process may be used again: the life itself never touches the GPU, its probe does.
    return ray.remote(num_returns="streaming", max_retries=0, retry_exceptions=False, max_calls=0)(life)


def control_of(ray: Any, *, timeout_seconds: float) -> Any:
    """The actor, once it answers, on the driver's own node: while there is a driver, lives can hear it.

    Raises:
        ray.exceptions.RayError: it cannot be started there in time.
    """
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    made = ray.remote(num_cpus=0, max_concurrency=MOST_LISTENERS, scheduling_strategy=here)(Control)
    actor = made.remote()
    ray.get(actor.ask.remote(0), timeout=timeout_seconds)
    return actor
