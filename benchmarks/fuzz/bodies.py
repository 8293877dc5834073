"""What routes are sent where it is to be broken: one that is right, at least, for each that reads a body of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from benchmarks.fuzz.targets import MODEL, MODEL_CONFIG, ROOT

JOB = {"model": MODEL, "max_seq_length": 4096}
OF_CONFIG = {"model": MODEL_CONFIG, "max_seq_length": 2048}
WORKER = {
    "id": "worker-1",
    "gpu": "NVIDIA H100 80GB HBM3",
    "total_bytes": 85_000_000_000,
    "driver": "580.1",
    "versions": {"torch": "2.13.0"},
}


def _rows() -> list[Any]:
    first = sorted((ROOT / "evidence" / "measurements").glob("*.jsonl"))[0]
    return [json.loads(line) for line in first.read_bytes().splitlines()[:2]]


def _configs() -> list[Any]:
    return [_config(file) for file in sorted((ROOT / "examples" / "configs").glob("*.yaml"))]


def _config(file: Path) -> Any:
    text = file.read_text(encoding="utf-8")
    return {"config": text if file.name.startswith("a") else yaml.safe_load(text), "gpu": "H100-80GB"}


PLANNED = [JOB, OF_CONFIG]
BODIES: dict[str, list[Any]] = {
    **dict.fromkeys(("/v1/estimates", "/v1/max-context", "/v1/plans", "/v1/scripts"), PLANNED),
    "/v1/preflight": _configs(),
    "/v1/tokens": [{"lengths": [1, 2, 3], "max_seq_lengths": [2]}, {"texts": ["a"], "tokenizer": MODEL}],
    "/v1/probe-jobs": [{"point": JOB}, {"points": [JOB, JOB]}],
    "/v1/probe-jobs/leases": [{"worker": WORKER}, WORKER],
    "/v1/measurements": [{"measurements": _rows()}, {"items": _rows()}],
    "/v1/observations": [{"observations": [{"job": JOB, "peak_allocated_bytes": 1}]}],
    "/v1/calibrations": [{"measurements": _rows()}],
    "/v1/calibrations/rollback": [{"why": "a"}],
    "/v1/workers/worker-1/heartbeat": [WORKER],
    "/v1/workers/worker-1/draining": [{"draining": True}],
}
PAGES = (
    "/", "/planner.json", "/page/answer", "/page/more", "/page/models", "/tiers", "/tiers.json", "/tiers/x",
    "/calibrations", "/calibrations.json", "/calibrations/x", "/jobs", "/jobs/1", "/campaigns", "/campaigns/1",
    "/workers", "/sign-in", "/docs", "/problems", "/static/page/page.css", "/nowhere",
)  # fmt: skip
