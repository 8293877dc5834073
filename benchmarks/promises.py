"""What is promised of the estimates, on families that no fit has seen."""

from __future__ import annotations

from typing import NamedTuple


class Promise(NamedTuple):
    """Limits of the absolute error of the allocated peak on one path: in the median, and of the worst point."""

    path: str
    middle: float
    worst: float


PROMISES = (
    Promise("eager", middle=0.003, worst=0.01),
    Promise("transformers", middle=0.005, worst=0.02),
    Promise("block_compiled", middle=0.01, worst=0.03),
    Promise("generated", middle=0.02, worst=0.05),
)
RESERVED_MIDDLE = 0.02
DEVICE_MIDDLE_BYTES = 3 * 2**30 // 10
HOST_MIDDLE = 0.05
COVERAGE = 0.95
"""The share of points whose measured peak is not above their 95 % bound."""
BOUND_MIDDLE = 0.03
"""How far the 95 % bound lies above the measured peak in the median."""
