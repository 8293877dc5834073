"""The queue's numbers as Prometheus' metrics. Every replica shows the same ones: of several, the largest counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from app.queue.counts import ALIVE_SECONDS, Counts
from app.queue.states import State

PREFIX = "ctxplan_queue_"


class QueueCollector(Collector):
    """Shows what `counts` holds, and whether that is anything: a queue that is empty and one that was not counted are
    two things."""

    def __init__(self) -> None:
        self.counts: Counts | None = None

    def collect(self) -> Iterator[Metric]:
        """The metrics, one family after another."""
        is_counted = {(): float(self.counts is not None)}
        yield _gauge("counted", "1 where the queue was counted, 0 where its numbers are missing", (), is_counted)
        if self.counts is not None:
            yield from _families(self.counts)


def _families(counts: Counts) -> Iterator[Metric]:
    gpus = sorted({gpu for _, gpu in counts.jobs})
    jobs = {(state.value, gpu): counts.jobs.get((state, gpu), 0) for gpu in gpus for state in State}
    yield _gauge("jobs", "Probe jobs", ("state", "gpu"), jobs)
    yield _gauge("leases", "Leases that are held", ("gpu",), {(gpu,): counts.leases.get(gpu, 0) for gpu in gpus})
    given = CounterMetricFamily(f"{PREFIX}leases_given", "Leases that were ever given", labels=("gpu",))
    for gpu in gpus:
        given.add_metric((gpu,), counts.leases_given.get(gpu, 0))
    yield given
    since = {gpu: counts.oldest_queued.get(gpu, counts.at) for gpu in gpus}
    waited = {(gpu,): max(0.0, (counts.at - at).total_seconds()) for gpu, at in since.items()}
    yield _gauge("oldest_queued_seconds", "Time since the oldest job that waits was last queued", ("gpu",), waited)
    kinds = [*gpus, *(gpu for gpu, _ in counts.workers)]
    workers = {
        (gpu, str(is_so).lower()): counts.workers.get((gpu, is_so), 0) for gpu in kinds for is_so in (False, True)
    }
    yield _gauge("workers", f"Workers heard of within {ALIVE_SECONDS} s", ("gpu", "draining"), workers)
    yield _gauge("results", "Results that came", ("state",), {(state,): n for state, n in counts.results.items()})


def _gauge(name: str, help: str, labels: tuple[str, ...], values: Mapping[Any, float]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}{name}", help, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric(key, value)
    return family
