"""A calibration as a value, and what it does to an answer."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxplan.calibrations import shipped
from ctxplan.models import resolve_model
from estimator import Estimate, estimate, parse_job
from estimator.calibration.bound import conformal_margin, pooled, strata
from estimator.calibration.document import (
    STRUCTURAL,
    WIDTHS,
    Calibration,
    Fragmentation,
    Measured,
    Modules,
    Range,
    calibration_to_json,
    content_id,
    read_calibration,
)
from estimator.errors import CalibrationError

MODEL = "unsloth/Llama-3.3-70B-Instruct-bnb-4bit"
DENSE = {"model": MODEL, "max_seq_length": 8192, "padding_free": False}
"""A dense batch with block compile on: the path block_compiled."""

finite = st.floats(-0.5, 0.5, allow_nan=False)
ascending = st.lists(finite, max_size=30).map(lambda values: tuple(sorted(values)))
names = st.text("abcdefgh/", min_size=1, max_size=12)
ranges = st.tuples(st.integers(1, 100), st.integers(100, 10**6)).map(lambda pair: Range(*pair))
calibrations = st.builds(
    Calibration,
    points=st.integers(0, 1000),
    digests=st.lists(st.text("0123456789abcdef", min_size=64, max_size=64), max_size=3).map(tuple),
    versions=st.dictionaries(names, st.lists(names, max_size=2).map(tuple), max_size=2),
    gpus=st.lists(names, max_size=2).map(tuple),
    corrections=st.dictionaries(names, st.dictionaries(st.sampled_from(WIDTHS), finite), max_size=3),
    residuals=st.dictionaries(names, ascending, max_size=3),
    reserved=st.dictionaries(names, st.builds(Fragmentation, finite, st.integers(0, 2**40), ascending), max_size=2),
    modules=st.dictionaries(names, st.builds(Modules, st.integers(0, 2**30), st.just((1, 2))), max_size=2),
    process=st.dictionaries(st.sampled_from(["sft", "loop"]), st.integers(0, 2**33)),
    measured=st.dictionaries(
        names,
        st.builds(
            Measured,
            families=st.frozensets(names, max_size=3),
            tokens=ranges,
            hidden_size=ranges,
            num_hidden_layers=ranges,
        ),
        max_size=2,
    ),
)


def asked(calibration: Calibration, **job: Any) -> Estimate:
    parsed = parse_job({**DENSE, **job})
    return estimate(parsed, resolve_model(parsed.model, offline=True).architecture, calibration)


def with_residuals(*values: float, stratum: str = "block_compiled") -> Calibration:
    covered = {
        "block_compiled": Measured(
            families=frozenset({"llama"}),
            tokens=Range(1, 10**6),
            hidden_size=Range(1, 10**5),
            num_hidden_layers=Range(1, 1000),
        )
    }
    return Calibration(
        id="sha256-test",
        points=len(values),
        gpus=("H100-80GB",),
        residuals={stratum: tuple(sorted(values))},
        measured=covered,
    )


class TestDocument:
    @given(calibrations)
    def test_it_survives_being_written_and_read(self, calibration: Calibration) -> None:
        document = json.loads(json.dumps(calibration_to_json(calibration)))
        read = read_calibration(document)
        assert read == replace(calibration, id=document["id"])
        assert calibration_to_json(read) == document

    @given(calibrations, calibrations)
    def test_one_id_is_one_content(self, one: Calibration, other: Calibration) -> None:
        ids = [calibration_to_json(found)["id"] for found in (one, other)]
        same = replace(one, id="") == replace(other, id="")
        assert (ids[0] == ids[1]) is same

    @pytest.mark.parametrize("key", sorted(calibration_to_json(STRUCTURAL).keys() - {"id", "schema_version"}))
    def test_a_document_that_was_changed_is_refused(self, key: str) -> None:
        document = json.loads(json.dumps(calibration_to_json(shipped())))
        document[key] = 7 if isinstance(document[key], int) else type(document[key])()
        with pytest.raises(CalibrationError, match="changed") as caught:
            read_calibration(document)
        assert caught.value.key == "id"

    @pytest.mark.parametrize("document", [None, [], {}, {"schema_version": 2}, "calibration"])
    def test_what_is_none_is_refused(self, document: Any) -> None:
        with pytest.raises(CalibrationError):
            read_calibration(document)

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            ("corrections", {"generated/loss/dense": {"height": 1.0}}),
            ("residuals", {"eager": [0.2, 0.1]}),
            ("residuals", {"eager": ["wide"]}),
            ("measured", {"eager": {}}),
            ("reserved", []),
        ],
    )
    def test_content_that_means_nothing_is_refused_though_its_id_is_right(self, key: str, value: Any) -> None:
        document = {**calibration_to_json(STRUCTURAL), key: value}
        document["id"] = content_id(document)
        with pytest.raises(CalibrationError, match="no calibration"):
            read_calibration(document)


class TestCoefficients:
    correction: ClassVar = {"block_compiled/backward/dense": {"mlp": 0.5, "hidden": -0.25}}

    def test_they_are_rows_of_the_peak_with_the_calibration_as_their_source(self) -> None:
        plain = asked(STRUCTURAL)
        fitted = asked(Calibration(id="sha256-test", points=9, corrections=self.correction))
        rows = {term.name: term for term in fitted.terms}
        width, hidden = 28_672, 8_192
        assert rows["calibrated_mlp"].bytes == 2 * 8192 * width // 2
        assert rows["calibrated_hidden"].bytes == -(2 * 8192 * hidden) // 4
        assert rows["calibrated_mlp"].source == "calibration sha256-test"
        added = rows["calibrated_mlp"].bytes + rows["calibrated_hidden"].bytes
        assert fitted.peak_allocated_bytes.expected == plain.peak_allocated_bytes.expected + added
        assert sum(term.bytes for term in fitted.terms) == fitted.peak_allocated_bytes.expected

    def test_the_written_paths_have_none(self) -> None:
        fitted = Calibration(points=9, corrections={"eager/backward/dense": {"mlp": 9.0}})
        assert asked(fitted, padding_free=True).peak == asked(STRUCTURAL, padding_free=True).peak

    def test_those_of_another_kind_of_model_are_not_taken(self) -> None:
        fitted = Calibration(points=9, corrections={"block_compiled/backward/experts": {"mlp": 9.0}})
        assert asked(fitted).peak == asked(STRUCTURAL).peak


class TestBound:
    @given(st.lists(finite, min_size=1, max_size=200), st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99]))
    def test_a_share_of_the_residuals_that_is_at_least_the_confidence_lies_below_it(
        self, values: list[float], confidence: float
    ) -> None:
        margin, thin = conformal_margin(tuple(sorted(values)), confidence)
        below = sum(value <= margin for value in values)
        assert margin >= 0
        assert below >= min(confidence * (len(values) + 1), len(values)) - 1e-6
        assert thin is (confidence * (len(values) + 1) > len(values) + 1e-6)

    def test_nineteen_residuals_are_the_fewest_for_95_percent(self) -> None:
        assert conformal_margin(tuple(i / 100 for i in range(19)), 0.95) == (0.18, False)
        assert conformal_margin(tuple(i / 100 for i in range(18)), 0.95) == (0.17, True)

    @given(st.lists(finite, min_size=20, max_size=60))
    def test_more_confidence_never_means_less_memory(self, values: list[float]) -> None:
        uppers = [
            asked(with_residuals(*values), confidence=confidence).peak_allocated_bytes.upper
            for confidence in (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
        ]
        assert uppers == sorted(uppers)

    def test_the_finest_stratum_with_enough_points_is_taken(self) -> None:
        fine, middle, _, coarse = strata("eager", "dense", "unsloth", "H100-80GB")
        known = {fine: (0.001,) * 5, middle: (0.02,) * 40, coarse: (0.3,) * 99}
        found = pooled(Calibration(residuals=known), (fine, middle, coarse), 0.95)
        assert found is not None
        assert (found.margin, found.thin, found.stratum) == (0.02, False, f"40 points of {middle}")

    def test_a_thin_stratum_keeps_its_own_largest_residual(self) -> None:
        fine, middle, *_ = strata("eager", "dense", "unsloth", "H100-80GB")
        known = {fine: (0.001, 0.09), middle: (0.0,) * 99}
        found = pooled(Calibration(residuals=known), (fine, middle), 0.95)
        assert found is not None
        assert (found.margin, found.thin) == (0.09, False)

    def test_too_few_points_are_said_and_never_bound_tighter_than_the_structure(self) -> None:
        few = asked(with_residuals(0.001, 0.002))
        assert few.evidence == "outside"
        assert any("2 points of block_compiled are too few" in said for said in few.assumptions)
        allocated = few.peak_allocated_bytes
        assert allocated.upper >= 1.035 * allocated.expected - 1

    @pytest.mark.parametrize(
        ("job", "reason"),
        [
            ({"gpu": "A100-80GB"}, "measured on Hopper only"),
            ({"gpu": "H200-141GB"}, "no point was measured on the H200-141GB: taken as the H100-80GB"),
            ({"versions": {"torch": "2.13.0"}}, "torch 2.13.0: another version was measured"),
            ({"model": "unsloth/Qwen3-8B-bnb-4bit"}, "qwen3 was measured on few rows"),
        ],
    )
    def test_outside_of_what_was_measured_the_bound_is_wider_and_says_why(
        self, job: dict[str, Any], reason: str
    ) -> None:
        calibration = with_residuals(*([0.01] * 30))
        outside = asked(calibration, **job)
        assert outside.evidence == "outside"
        assert any(reason in said for said in outside.assumptions)
        allocated = outside.peak_allocated_bytes
        assert allocated.upper > 1.0101 * allocated.expected

    def test_one_of_another_memory_model_is_said_to_be_old(self) -> None:
        calibration = replace(with_residuals(*([0.01] * 30)), memory_model=0)
        assert any("fit it again" in said for said in asked(calibration).assumptions)

    def test_inside_it_nothing_is_added(self) -> None:
        inside = asked(with_residuals(*([0.01] * 30)))
        assert inside.evidence == "inside"
        assert inside.peak_allocated_bytes.upper == pytest.approx(1.01 * inside.peak_allocated_bytes.expected, abs=2)


class TestWithNone:
    def test_the_answer_comes_and_is_marked_structural(self) -> None:
        answer = asked(STRUCTURAL)
        assert answer.calibration == {"id": "structural", "points": 0}
        assert answer.peak_allocated_bytes.upper > answer.peak_allocated_bytes.expected

    def test_the_shipped_one_is_named_in_every_answer(self) -> None:
        answer = asked(shipped())
        assert answer.calibration == {"id": shipped().id, "points": shipped().points}
        assert shipped().points >= 200


def test_a_document_of_the_first_schema_is_read_and_its_reserved_bytes_are_left_to_the_structure() -> None:
    """It lies in the stores of those who fitted one, and may be the active one."""
    document = {**calibration_to_json(Calibration(points=3)), "schema_version": 1}
    document["reserved"] = {"eager": {"expected": 0.02, "residuals": [-0.01, 0.0, 0.01]}}
    document["id"] = content_id(document)
    read = read_calibration(document)
    assert (read.id, read.points, read.reserved) == (document["id"], 3, {})
