"""What the service counts, by route template: never by path, whose values are the caller's."""

from __future__ import annotations

from time import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from app.queue_metrics import QueueCollector
from estimator.calibration.document import Calibration

METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 10.0)


class Metrics:
    """The counters of one application; each has its own registry, so that two in one process do not meet."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._requests = Counter(
            "ctxplan_http_requests",
            "Requests answered",
            ["method", "route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "ctxplan_http_request_seconds",
            "Time to answer",
            ["method", "route"],
            buckets=BUCKETS,
            registry=self._registry,
        )
        self._shed = Counter(
            "ctxplan_http_shed",
            "Requests refused: one caller's rate, the service is behind, or too many of that kind wait already",
            ["why"],
            registry=self._registry,
        )
        self._lost = Counter(
            "ctxplan_planning_processes_lost",
            "Planning processes that ended over their work, or were ended because it took too long; each is replaced",
            registry=self._registry,
        )
        self._points = Gauge("ctxplan_calibration_points", "Points of the active calibration", registry=self._registry)
        self._age = Gauge(
            "ctxplan_calibration_age_seconds",
            "Time since the active calibration was stored; NaN for the shipped one",
            registry=self._registry,
        )
        self._observations = Counter(
            "ctxplan_observations",
            "Observations of training runs that were kept",
            ["state"],
            registry=self._registry,
        )
        self._drift = Gauge(
            "ctxplan_calibration_drift",
            "Findings of measurements beyond the active calibration's bound",
            registry=self._registry,
        )
        self._families = Gauge(
            "ctxplan_calibration_families",
            "Families of models that the active calibration was measured on",
            ["path"],
            registry=self._registry,
        )
        self._tokens = Gauge(
            "ctxplan_calibration_tokens",
            "The longest micro-batch that the active calibration was measured on",
            ["path"],
            registry=self._registry,
        )
        self.queue = QueueCollector()
        self._registry.register(self.queue)

    def shed(self, why: str) -> None:
        """Count a request refused for the `rate` of its caller, the `lag` of the loop, or what waits already: `plans`,
        `lookups`, `tokens`, `fits`, `jobs` or `observations`."""
        self._shed.labels(why).inc()

    def process_lost(self) -> None:
        """Count a planning process that did not end by itself."""
        self._lost.inc()

    def observed(self, state: str) -> None:
        """Count an observation of a training run that was kept: `within` the bound, `beyond` it, or `unjudged`."""
        self._observations.labels(state).inc()

    def record(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count one answered request."""
        requests, times = self._series(method if method in METHODS else "other", route, status)
        requests.inc()
        times.observe(seconds)

    def calibration(self, calibration: Calibration, stored_at: float, drift: int) -> None:
        """Say which calibration answers: what it covers, when it was stored (epoch seconds, or NaN), and its drift."""
        self._points.set(calibration.points)
        self._age.set_function(lambda: time() - stored_at)
        self._drift.set(drift)
        for gauge in (self._families, self._tokens):
            gauge.clear()
        for path, measured in calibration.measured.items():
            self._families.labels(path).set(len(measured.families))
            self._tokens.labels(path).set(measured.tokens.most)

    def _series(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        """The two series of a kind of request, kept: to find them by their labels costs more than to
        count."""
        kind = (method, route, status)
        if kind not in self._known:
            self._known[kind] = (
                self._requests.labels(method, route, str(status)),
                self._seconds.labels(method, route),
            )
        return self._known[kind]

    def text(self) -> bytes:
        """The counters in Prometheus' text format."""
        return generate_latest(self._registry)
