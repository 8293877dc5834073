"""The metrics of a running service, asked of one that has a job and a worker."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its client is httpx, which is what this project has
    from starlette.testclient import TestClient

from app.main import create_app
from app.metrics import Metrics
from app.settings import Settings
from scripts.manual.markdown import code, codes, document, prose, sentence, table

POINT = {"job": {"model": "unsloth/Llama-3.2-1B-Instruct", "max_seq_length": 1024, "num_hidden_layers": 2}}
WORKER = {"name": "one", "gpu": "H100-80GB", "total_bytes": 80 * 2**30, "versions": {}}


def page() -> str:
    """The reference of metrics."""
    declared = declared_labels()
    return document(
        "Metrics",
        "What `GET /metrics` shows, in Prometheus' text format. Routes are templates (`/v1/tiers/{name}`), never what "
        "a caller wrote. The queue's are read from the database, the same on every replica: of several, take the "
        "largest. They are missing while the database cannot be reached.",
        table(
            ("metric", "kind", "labels", "what it is"),
            [
                (code(_name(one)), one.type, codes(_labels(one, declared)), sentence(prose(one.documentation)))
                for one in families()
            ],
        ),
    )


def families() -> list[Metric]:
    """Every family of metrics that a service of the project shows, by name."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(
            database_url=f"sqlite+aiosqlite:///{Path(folder) / 'ctxplan.db'}",
            calibrations=Path(folder),
            allow_hub=False,
            log_level="error",
        )
        with TestClient(create_app(settings), base_url="http://127.0.0.1:8000") as client:
            client.post("/v1/probe-jobs", json={"point": POINT}).raise_for_status()
            client.post("/v1/workers/one/heartbeat", json={**WORKER, "draining": False}).raise_for_status()
            text = client.get("/metrics").text
    found = {one.name: one for one in text_string_to_metric_families(text) if not one.name.endswith("_created")}
    return [found[name] for name in sorted(found)]


def _name(metric: Metric) -> str:
    return f"{metric.name}_total" if metric.type == "counter" else metric.name


def declared_labels() -> dict[str, tuple[str, ...]]:
    """Labels of each family that the service counts itself; of what has not happened yet, nothing else says them."""
    made = [one for one in vars(Metrics()).values() if isinstance(one, MetricWrapperBase)]
    return {one._name: tuple(one._labelnames) for one in made}


def _labels(metric: Metric, declared: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Those that are declared, and of the queue's, which come from elsewhere, those that are shown."""
    shown = {label for sample in metric.samples for label in sample.labels} - {"le"}
    return sorted(declared.get(metric.name, shown))
