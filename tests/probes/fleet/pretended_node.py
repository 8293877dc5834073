"""Nodes of a Ray cluster that say they have an H100, for Ray's ``worker_process_setup_hook``."""

from __future__ import annotations

import os

import ray

from probes.nvml import Card
from probes.worker import facts
from tests.probes.replay import H100


def pretend() -> None:
    """Let lives in this process of Ray's find the card that the node was given, and what they start find none."""
    vars(facts)["find_card"] = _card


def _card(*_: object) -> Card:
    given = ray.get_gpu_ids()
    assert len(given) == 1, f"a whole GPU, and not {given}"
    assert os.environ["CUDA_VISIBLE_DEVICES"] in (str(given[0]), "")
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    node = ray.get_runtime_context().get_node_id()
    return Card(
        uuid=f"GPU-{node[:12]}", name=H100, total_bytes=85_017_493_504, free_bytes=85_000_000_000, driver="580.1"
    )
