"""Margins where no calibration is given: read off the measured rows under ``evidence/measurements``.

One H100 and one H200, torch 2.11: the margins are the largest deviation seen on rows of their kind, rounded up, so the
bound is true of those rows by construction; the tests hold it so.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from estimator.allocator import MIB
from estimator.calibration.document import Measured, Range

LOADED_MODULES_BYTES = 171_966_464
"""What the driver counts beside context and reserved memory once kernels have been loaded: 890,044,416 B in all on
an H100.
"""

PRESSURE_SLACK_BYTES = 64 * MIB
PRESSURE_SLACK_UPPER_BYTES = 320 * MIB
"""What expandable segments cannot give back when the card is full: partly used pages (and kernels loaded beyond the
usual).
"""

MORE_MODULES_BYTES = 64 * MIB
"""Kernels beyond the usual, in the upper bound: two rows with compiled soft-capping needed 20 MB more."""


class Margins(NamedTuple):
    """Relative margins of one kind of run.

    Attributes:
        allocated: how far above the expected peak a measured one was. reserved, reserved_upper: reserved beyond
        allocated where the card has room, in the median and at most.
    """

    allocated: float
    reserved: float
    reserved_upper: float


PATH_MARGINS = {
    "eager": Margins(allocated=0.01, reserved=0.016, reserved_upper=0.08),
    "block_compiled": Margins(allocated=0.035, reserved=0.046, reserved_upper=0.09),
    "generated": Margins(allocated=0.12, reserved=0.075, reserved_upper=0.44),
    "transformers": Margins(allocated=0.02, reserved=0.185, reserved_upper=0.58),
}
TILED_RESERVED, TILED_RESERVED_UPPER = 0.08, 0.11

CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
CONFIDENCE_FACTORS = (0.0, 0.154, 0.319, 0.512, 0.779, 1.0, 1.414)
"""Quantiles of the normal distribution over its 95 % quantile: how a 95 % margin becomes another confidence's."""

_ANY = Range(1, 2**31)


MEASURED = {
    "eager": Measured(
        families=frozenset({"llama", "mistral", "qwen2", "qwen3"}),
        tokens=Range(128, 111_931),
        hidden_size=_ANY,
        num_hidden_layers=_ANY,
    ),
    "transformers": Measured(
        families=frozenset({"llama", "mistral", "qwen2", "qwen3", "gemma2"}),
        tokens=Range(128, 16_384),
        hidden_size=_ANY,
        num_hidden_layers=_ANY,
    ),
}
"""What margins of the written paths were read from; `PATH_MARGINS` of the other two hold for every family."""

MEASURED_TOKENS = {"eager": 111_931, "block_compiled": 89_389, "generated": 16_384, "transformers": 16_384}
"""The longest micro-batch measured on each path; the shortest was 128 tokens."""


def confidence_factor(confidence: float) -> float:
    """How many 95 % margins a confidence takes; linear between the table's points."""
    i = min(bisect_right(CONFIDENCES, confidence), len(CONFIDENCES) - 1)
    low, high = CONFIDENCES[i - 1], CONFIDENCES[i]
    share = (confidence - low) / (high - low)
    return CONFIDENCE_FACTORS[i - 1] + share * (CONFIDENCE_FACTORS[i] - CONFIDENCE_FACTORS[i - 1])
