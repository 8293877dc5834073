"""What is asked: jobs, pages and look-ups as a team's tools and browsers would send them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import urlencode

from benchmarks.sample import DENSE, JOB, TANGLED

ESTIMATE = "POST /v1/estimates"
LENGTHS = (2_048, 4_096, 8_192, 16_384, 32_768, 65_536, 89_389, 131_072)
GPUS = ("H100-80GB", "A100-80GB", "L40S-48GB", "RTX-4090-24GB", "H200-141GB")
SMALL: dict[str, Any] = {"model": "unsloth/Llama-3.2-1B-Instruct", "gpu": "RTX-4090-24GB"}


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. ``kind`` is its route, under which its times are counted."""

    kind: str
    method: str
    path: str
    body: bytes

    def raw(self, port: int) -> bytes:
        """As it goes over the wire."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Content-Length: {len(self.body)}"]
        if self.body:
            lines.append("Content-Type: application/json")
        return "\r\n".join([*lines, "", ""]).encode() + self.body


SHARES: Mapping[str, int] = {
    ESTIMATE: 70,
    "POST /v1/max-context": 8,
    "POST /v1/scripts": 4,
    "POST /v1/preflight": 2,
    "POST /v1/plans": 2,
    "GET /page/answer": 2,
    "GET /v1/models": 4,
    "GET /v1/gpus": 4,
    "GET /healthz": 4,
}
"""Of a hundred requests."""


def mixed(count: int, *, seed: int = 1) -> Sequence[Ask]:
    """So many different requests in random order, in these shares."""
    dice = Random(seed)
    kinds = dice.choices(list(SHARES), weights=list(SHARES.values()), k=count)
    return [_ask(kind, dice) for kind in kinds]


def _ask(kind: str, dice: Random) -> Ask:
    method, _, path = kind.partition(" ")
    job = {
        **dice.choice((JOB, DENSE, TANGLED, SMALL)),
        "max_seq_length": dice.choice(LENGTHS),
        "gpu": dice.choice(GPUS),
    }
    if kind == "POST /v1/preflight":
        return _post(kind, path, {"config": json.dumps(job), "file": "job.json"})
    if kind == "GET /page/answer":
        query = urlencode({"model": JOB["model"], "gpu": job["gpu"], "max_seq_length": job["max_seq_length"]})
        return Ask(kind, method, f"{path}?{query}", b"")
    return _post(kind, path, job) if method == "POST" else Ask(kind, method, path, b"")


def _post(kind: str, path: str, body: Mapping[str, Any]) -> Ask:
    return Ask(kind, "POST", path, json.dumps(body).encode())
