"""Points: what stands for one, what is refused and how it is named, and the digest that names what is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from estimator.errors import JobError
from probes.errors import PointError
from probes.points import parse_point, parse_points
from tests.probes.common import JOB

TRANSFORMERS = {**JOB, "framework": "transformers"}
GENERATION = {**JOB, "mode": "generate", "max_new_tokens": 4}
POINTS = Path(__file__).parents[2] / "evidence" / "points"


def test_a_job_by_itself_is_a_point() -> None:
    assert parse_point(JOB) == parse_point({"job": JOB})


def test_unsloth_runs_under_its_trainer_and_transformers_in_a_loop() -> None:
    assert parse_point(JOB).trainer == "sft"
    assert parse_point(TRANSFORMERS).trainer == "loop"
    assert parse_point({"job": TRANSFORMERS, "trainer": "sft"}).trainer == "sft"


def test_nothing_trains_where_the_job_generates() -> None:
    point = parse_point(GENERATION)
    assert point.trainer is None
    assert parse_point({"job": GENERATION, "trainer": None}) == point
    assert parse_point(json.loads(json.dumps(point.to_json()))) == point


def test_documents_make_up_the_micro_batch_that_the_job_names() -> None:
    whole = parse_point({"job": {**JOB, "packing": True}, "sample_lengths": [40, 24]})
    assert whole.sample_lengths == (40, 24)
    rows = {**JOB, "packing": True, "per_device_train_batch_size": 2, "sequence_length": 32}
    assert parse_point({"job": rows, "sample_lengths": [64]}).sample_lengths == (64,)
    with pytest.raises(PointError) as raised:
        parse_point({"job": rows, "sample_lengths": [32]})
    assert "64 tokens together: 2 x 32" in str(raised.value.allowed)


@pytest.mark.parametrize("file", sorted(POINTS.glob("*.jsonl")), ids=lambda file: file.stem)
def test_every_committed_file_of_points_can_be_run(file: Path) -> None:
    for line in file.read_text(encoding="utf-8").splitlines():
        points = parse_points(json.loads(line))
        assert [parse_point(point.to_json()).digest for point in points] == [point.digest for point in points]


def test_several_lengths_are_several_points_shortest_first() -> None:
    found = parse_points({"job": JOB, "sequence_lengths": [64, 16, 32], "steps": 4})
    assert [point.sequence_length for point in found] == [16, 32, 64]
    assert {point.steps for point in found} == {4}
    with pytest.raises(PointError, match="several"):
        parse_point({"job": JOB, "sequence_lengths": [64, 16]})


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"job": JOB, "step": 3}, "step"),
        ({"job": {**JOB, "ranks": 3}}, "job.ranks"),
        ({"job": JOB, "steps": 1}, "steps"),
        ({"job": JOB, "steps": 2.5}, "steps"),
        ({"job": JOB, "trainer": "grpo"}, "trainer"),
        ({"job": JOB, "sequence_lengths": []}, "sequence_lengths"),
        ({"job": JOB, "sequence_lengths": [0]}, "sequence_lengths[0]"),
        ({"job": {**JOB, "sequence_length": 8}, "sequence_lengths": [8]}, "sequence_lengths"),
        ({"job": JOB, "environment": {"LD_PRELOAD": "x"}}, "environment.LD_PRELOAD"),
        ({"job": JOB, "environment": {"UNSLOTH_CHUNKED_CE": 1}}, "environment"),
        ({"job": JOB, "cap_bytes": 5}, "cap_bytes"),
        ({"job": {**JOB, "per_device_eval_batch_size": 2}}, "job.per_device_eval_batch_size"),
        ({"job": {**JOB, "padding_free": False}, "sample_lengths": [32, 32]}, "sample_lengths"),
        ({"job": TRANSFORMERS, "sample_lengths": [32, 32]}, "sample_lengths"),
        ({"job": JOB, "sample_lengths": [32, 31]}, "sample_lengths"),
        ({"job": {**JOB, "sequence_length": 32}, "sample_lengths": [32, 32]}, "sample_lengths"),
        ({"job": {**JOB, "per_device_train_batch_size": 2}, "sample_lengths": [32, 32]}, "sample_lengths"),
        ({"job": {**JOB, "per_device_train_batch_size": 2}, "sample_lengths": [63, 65]}, "sample_lengths[1]"),
        ({"job": JOB, "sample_lengths": [32, 32], "sequence_lengths": [64]}, "sample_lengths"),
        ({"job": {**TRANSFORMERS, "packing": True}}, "job.packing"),
        ({"job": {**JOB, "mode": "generate"}}, "job.max_new_tokens"),
        ({"job": GENERATION, "trainer": "sft"}, "trainer"),
        ({"job": GENERATION, "sample_lengths": [64]}, "sample_lengths"),
    ],
)
def test_what_is_wrong_is_named(data: dict[str, Any], key: str) -> None:
    with pytest.raises((PointError, JobError)) as raised:
        parse_points(data)
    assert raised.value.key == key


def test_a_point_comes_back_from_its_json_with_its_digest() -> None:
    point = parse_point(
        {
            "job": {**JOB, "packing": True},
            "trainer": "loop",
            "steps": 5,
            "sample_lengths": [16, 48],
            "environment": {"UNSLOTH_CHUNKED_CE": "1"},
            "cap_bytes": 2**34,
        }
    )
    again = parse_point(json.loads(json.dumps(point.to_json())))
    assert again == point
    assert again.digest == point.digest


@pytest.mark.parametrize(
    "change",
    [
        {"job": {**JOB, "r": 8}},
        {"trainer": "loop"},
        {"steps": 4},
        {"environment": {"UNSLOTH_CHUNKED_CE": "1"}},
        {"cap_bytes": 2**34},
        {"sample_lengths": [64]},
    ],
)
def test_whatever_changes_what_is_measured_changes_the_digest(change: dict[str, Any]) -> None:
    assert parse_point({"job": JOB, **change}).digest != parse_point({"job": JOB}).digest


def test_the_order_of_keys_does_not_change_the_digest() -> None:
    turned = dict(reversed(JOB.items()))
    variables = {"UNSLOTH_ENABLE_CCE": "1", "UNSLOTH_FULLGRAPH": "2"}
    one = parse_point({"job": JOB, "environment": variables})
    other = parse_point({"environment": dict(reversed(variables.items())), "job": turned})
    assert one.digest == other.digest
