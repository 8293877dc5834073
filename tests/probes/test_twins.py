"""A twin's measurement and the estimates' difference give the full depth."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from ctxplan import Planner
from probes.errors import PointError
from probes.measurement import Measurement
from probes.points import Point, parse_point
from probes.rows import read_measurements
from probes.twins import DECISIONS, OF_STEPS, cap_for, extend, twin_of
from tests.probes.documents import committed, measured, out_of_memory

JOB_70B = {"model": "unsloth/Llama-3.3-70B-Instruct-bnb-4bit", "gpu": "H100-80GB", "max_seq_length": 89389, "r": 32}
PEAKS = (
    "after_load_allocated_bytes",
    "after_peft_allocated_bytes",
    "forward_peak_bytes",
    "backward_peak_bytes",
    "optimizer_peak_bytes",
    "peak_allocated_bytes",
)
WITHOUT_BYTES = ("num_hidden_layers", "pin_host_memory", "host_ram_bytes", "confidence", "versions")
"""Keys of a job that put no byte on the GPU, and the depth."""


H100 = Path(__file__).parents[2] / "evidence" / "measurements" / "h100-80gb-2026-11-25.jsonl"


def pairs() -> list[Any]:
    """Committed rows of one job at two depths, the shallower first."""
    alike: dict[str, list[Measurement]] = defaultdict(list)
    for row in committed():
        job = {key: value for key, value in row.job.items() if key not in WITHOUT_BYTES}
        alike[
            json.dumps([job, row.gpu, row.trainer, row.execution_path, row.environment_asked, row.cap is None])
        ].append(row)
    found = []
    for rows in alike.values():
        depths = {row.num_hidden_layers or 0: row for row in rows if row.outcome == "ok"}
        for few, many in combinations(sorted(depths), 2):
            name = f"{depths[few].execution_path}-{depths[few].sequence_length}-{few}to{many}"
            mode = depths[few].job["use_gradient_checkpointing"]
            found.append(pytest.param(depths[few], depths[many], id=f"{name}-{mode}"))
    return found


PAIRS = pairs()


def point_70b(length: int = 89389) -> Point:
    return parse_point({**JOB_70B, "max_seq_length": length})


def test_jobs_were_measured_at_two_depths_the_full_one_among_them() -> None:
    assert len(PAIRS) >= 14
    assert any(pair.values[1].num_hidden_layers == 32 for pair in PAIRS)


@pytest.mark.parametrize(("twin", "deeper"), PAIRS)
def test_a_twin_extends_to_what_the_deeper_model_measured(twin: Measurement, deeper: Measurement) -> None:
    extension = extend(twin, layers=deeper.num_hidden_layers)
    # Stock transformers without checkpointing keeps activations of every layer: 0.15 % of them is not explained.
    kept = twin.execution_path == "transformers" and twin.job["use_gradient_checkpointing"] is False
    within = 0.002 if kept else 0.001
    for name in PEAKS:
        assert getattr(extension, name) == pytest.approx(getattr(deeper, name), rel=within), name
    assert extension.same_regime
    assert extension.layers == deeper.num_hidden_layers


@pytest.mark.parametrize(("twin", "deeper"), [p for p in PAIRS if p.values[0].execution_path == "eager"])
def test_of_an_eager_twin_the_peak_is_exact_to_a_millionth(twin: Measurement, deeper: Measurement) -> None:
    assert extend(twin, layers=deeper.num_hidden_layers).peak_allocated_bytes == pytest.approx(
        deeper.peak_allocated_bytes, rel=1e-6
    )


def test_what_the_estimate_misses_in_the_twin_is_carried_to_the_full_depth() -> None:
    twin = PAIRS[0].values[0]
    more = twin.model_copy(update={name: getattr(twin, name) + 10**9 for name in PEAKS})
    difference = extend(more).peak_allocated_bytes - extend(twin).peak_allocated_bytes
    assert difference == extend(more).unexplained_bytes - extend(twin).unexplained_bytes == 10**9


def test_an_embedding_that_only_the_full_model_moves_is_in_the_difference_and_in_the_assumptions() -> None:
    point = twin_of(point_70b(), 3)
    on_its_own = measured(point, num_hidden_layers=3, total_bytes=85_020_639_232)
    extension = extend(on_its_own)
    assert [(d.key, d.twin, d.full) for d in extension.differences] == [
        ("embedding_offloaded", False, True),
        ("embedding_leaves_after", None, "peft"),
    ]
    assert not extension.same_regime
    assert "embedding_offloaded is False in the twin and True at full depth" in extension.assumptions[0]
    embedding_bytes = 2 * 128_256 * 8_192
    kept = extend(measured(replace(point, job=replace(point.job, offload_embedding=False)), num_hidden_layers=3))
    assert kept.peak_allocated_bytes - extension.peak_allocated_bytes == embedding_bytes


def test_three_layers_of_a_measured_70b_say_what_80_were_measured_to_take() -> None:
    """The committed runs at 89,389 tokens, where the full model moves its embedding after get_peft_model."""
    rows = [row for row in read_measurements(H100) if row.sequence_length == 89_389 and row.trainer == "sft"]
    (twin,) = (row for row in rows if row.num_hidden_layers == 3)
    (full,) = (row for row in rows if row.num_hidden_layers == 80)
    extension = extend(twin)
    for part in ("after_load_allocated", "after_peft_allocated", "forward_peak", "backward_peak"):
        assert getattr(extension, f"{part}_bytes") == getattr(full, f"{part}_bytes"), part
    assert extension.peak_allocated_bytes == full.peak_allocated_bytes
    assert extension.optimizer_peak_bytes == pytest.approx(full.optimizer_peak_bytes, abs=2**20)


def test_where_the_embedding_leaves_after_the_load_load_and_adapters_are_those_of_the_full_model() -> None:
    """What loading and adapters leave does not depend on the length: three layers at 89,389 tokens, whose embedding
    stays, for the committed run at 111,931, whose embedding leaves before the adapters come."""
    rows = [row for row in read_measurements(H100) if row.trainer == "sft"]
    (twin,) = (row for row in rows if row.num_hidden_layers == 3 and row.sequence_length == 89_389)
    (full,) = (row for row in rows if row.num_hidden_layers == 80 and row.sequence_length == 111_931)
    longer = twin.model_copy(update={"job": {**twin.job, "max_seq_length": 111_931}, "sequence_length": 111_931})
    extension = extend(longer)
    assert extension.after_load_allocated_bytes == full.after_load_allocated_bytes
    assert extension.after_peft_allocated_bytes == full.after_peft_allocated_bytes
    assert full.after_load_allocated_bytes < full.after_peft_allocated_bytes  # type: ignore[operator]
    assert ("embedding_leaves_after", None, "load") in extension.differences
    assert any(said.startswith("embedding_leaves_after is None in the twin") for said in extension.assumptions)


@pytest.mark.parametrize("length", [2048, 40000, 82000, 83000, 89389, 110270, 117000])
def test_under_its_cap_a_twin_decides_as_the_full_model_does(length: int) -> None:
    planner = Planner(offline=True)
    point = point_70b(length)
    cap_bytes = cap_for(point, 3)
    gpu = {"name": "H100-80GB", "total_bytes": cap_bytes}
    twin = planner.estimate(replace(twin_of(point, 3).job, gpu=gpu))
    full = planner.estimate(point.job)
    # At 89,389 tokens no card is of the size on which three layers decide after the load what 80 decide after PEFT.
    compared = OF_STEPS if length == 89_389 else DECISIONS
    assert {key: twin.regime[key] for key in compared} == {key: full.regime[key] for key in compared}
    assert twin.verdict != "does_not_fit" or full.verdict == "does_not_fit"
    assert cap_bytes < 55 * 2**30


def test_a_twin_measured_under_its_cap_extends_in_one_regime() -> None:
    point = twin_of(point_70b(), 3)
    cap = {"total_bytes": cap_for(point_70b(), 3), "ballast_bytes": 2**35, "not_emulated": ()}
    extension = extend(measured(point, num_hidden_layers=3, cap=cap))
    assert extension.same_regime
    assert extension.layers == 80
    assert extension.job.gpu == "H100-80GB"


def test_a_decision_that_the_run_took_otherwise_than_its_estimate_is_said() -> None:
    point = twin_of(point_70b(), 3)
    document = measured(point, num_hidden_layers=3)
    other = document.model_copy(update={"ran": document.ran.model_copy(update={"double_buffer": False})})
    assert any("ran with double_buffer False" in said for said in extend(other).assumptions)


def test_layers_of_a_kind_that_the_twin_has_none_of_are_said() -> None:
    job = {"model": "google/gemma-3-1b-it", "max_seq_length": 4096, "num_hidden_layers": 3, "padding_free": False}
    point = parse_point(job)
    row = measured(point, num_hidden_layers=3, execution_path="generated")
    assert any("kinds of layer are not in the twin" in said for said in extend(row).assumptions)


@pytest.mark.parametrize("layers", [0, -1, 3, 80])
def test_a_twin_has_fewer_layers_than_its_point(layers: int) -> None:
    three = replace(point_70b(), job=replace(point_70b().job, num_hidden_layers=3))
    with pytest.raises(PointError):
        twin_of(three, layers)


def test_a_run_out_of_memory_has_nothing_to_extend() -> None:
    with pytest.raises(PointError, match="out_of_memory"):
        extend(out_of_memory(twin_of(point_70b(), 3), num_hidden_layers=3))


def test_a_full_model_is_no_twin_of_itself() -> None:
    with pytest.raises(PointError, match="80"):
        extend(measured(point_70b(), num_hidden_layers=80))
