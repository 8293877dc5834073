"""The schema of a measurement: what contradicts itself is none."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from probes.document import INSTRUMENT
from probes.measurement import Measurement
from probes.points import parse_point
from tests.probes.common import JOB, point
from tests.probes.documents import committed, eager_row, measured, measured_on_the_cpu

PEAK = {"allocated_bytes": 1, "reserved_bytes": 1}
STEP = {
    **dict.fromkeys(("forward", "backward", "optimizer")),
    **dict.fromkeys(("peak_allocated_bytes", "peak_reserved_bytes", "device_used_bytes")),
    "loss": 2.5,
    "seconds": 0.1,
}


def own(**changes: Any) -> Measurement:
    """A row of this instrument, on the CPU."""
    return measured_on_the_cpu(point(), **{"instrument": INSTRUMENT, **changes})


def test_a_training_that_ended_well_has_steps_with_losses() -> None:
    assert len(own().steps) == 3
    for steps in ([], [STEP, {**STEP, "loss": None}]):
        with pytest.raises(ValidationError, match="finite loss"):
            own(steps=steps)


def test_one_that_did_not_end_well_may_have_none() -> None:
    assert own(outcome="crashed", steps=(), steps_run=0).steps == ()


def test_a_generation_needs_no_steps() -> None:
    generation = parse_point({**JOB, "mode": "generate", "max_new_tokens": 4})
    row = measured_on_the_cpu(generation, instrument=INSTRUMENT, steps=(), steps_run=3)
    assert row.trainer is None


def test_rows_of_earlier_scripts_kept_no_loss_and_are_measurements_all_the_same() -> None:
    assert any(step.loss is None for row in committed() for step in row.steps)


def test_no_more_steps_are_kept_than_ran() -> None:
    with pytest.raises(ValidationError, match="no more steps"):
        own(steps=[STEP] * 3, steps_run=2)
    assert own(steps=[STEP], steps_run=3).steps_run == 3


@pytest.mark.parametrize("name", sorted(n for n in Measurement.model_fields if n.endswith("_bytes")))
def test_on_the_cpu_no_byte_of_a_gpu_is_written_at_the_top(name: str) -> None:
    with pytest.raises(ValidationError, match="path cpu carries no GPU byte"):
        own(**{name: 0})


@pytest.mark.parametrize(
    "part",
    [
        {"load": {"peak": PEAK, "allocated_bytes": None, "reserved_bytes": None, "seconds": 1.0}},
        {"peft": {"peak": dict.fromkeys(PEAK), "allocated_bytes": 1, "reserved_bytes": None, "seconds": 1.0}},
        {"steps": [{**STEP, "backward": PEAK}]},
        {"steps": [STEP, {**STEP, "device_used_bytes": 1}]},
        {"generation": PEAK},
        {"evaluation": {**PEAK, "loss": 1.0}},
        {"allocator": {"retries": 0, "out_of_memory": 0}},
        {"cap": {"total_bytes": 1, "ballast_bytes": 1, "not_emulated": []}},
        {"live_tensors": [{"bytes": 1, "blocks": 1, "stack": []}]},
        {
            "host": {
                "rss_bytes": 1,
                "peak_rss_bytes": 1,
                "pinned_allocated_bytes": 1,
                "pinned_reserved_bytes": None,
                "total_ram_bytes": 1,
            }
        },
    ],
    ids=lambda part: next(iter(part)),
)
def test_nor_in_any_part(part: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="path cpu carries no GPU byte"):
        own(**part)


def test_what_the_cpu_does_have_is_written() -> None:
    nothing = {"peak": dict.fromkeys(PEAK), "allocated_bytes": None, "reserved_bytes": None, "seconds": 1.0}
    host = {"rss_bytes": 1, "peak_rss_bytes": 2, "total_ram_bytes": 3}
    pinned = {"pinned_allocated_bytes": None, "pinned_reserved_bytes": None}
    row = own(load=nothing, generation=dict.fromkeys(PEAK), host={**host, **pinned})
    assert row.load is not None
    assert row.load.seconds == 1.0


def test_a_row_of_a_gpu_keeps_all_of_it() -> None:
    row = eager_row()
    assert measured(point()).peak_allocated_bytes == row.peak_allocated_bytes
