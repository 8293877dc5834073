"""What only a CUDA host can show. Elsewhere every test here is skipped, with the reason."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from probes.nvml import find_card

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what stands in this folder, and skip it where it cannot run."""
    ready = importlib.util.find_spec("unsloth") is not None and find_card() is not None
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(pytest.mark.timeout(400))
            if not ready:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and Unsloth"))
