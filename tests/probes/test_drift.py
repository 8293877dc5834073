"""Drift: what a new version needs beyond the bound is found, named by what changed, and nothing else is."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from ctxplan.calibrations import shipped
from estimator.calibration.document import STRUCTURAL
from probes.errors import EvidenceError
from probes.fitting.compare import differences, errors_of, observed
from probes.fitting.drift import Change, find_drift
from probes.fitting.rows import committed_rows, documents_of, read_files, read_rows
from probes.measurement import Measurement
from tests.probes.documents import MEASUREMENTS, committed, eager_row


def scaled(rows: Iterable[Measurement], factor: float, **versions: str) -> list[Measurement]:
    """The rows as they would be if every peak were so much larger, on another stack."""
    names = [name for name in Measurement.model_fields if name.endswith("_peak_bytes")] + ["peak_allocated_bytes"]
    return [
        row.model_copy(
            update={
                **{name: int(getattr(row, name) * factor) for name in names if getattr(row, name)},
                "stack": {**row.stack, **versions},
            }
        )
        for row in rows
    ]


class TestDrift:
    def test_the_committed_rows_do_not_drift_from_the_shipped_calibration(self) -> None:
        assert find_drift(committed(), shipped()) == []

    def test_a_version_that_needs_more_is_found_and_named(self) -> None:
        found = find_drift(scaled([eager_row()], 1.05, unsloth="2027.1.1"), shipped())
        assert len(found) == 1
        assert found[0].changed == (Change("unsloth", ("2026.10.9",), "2027.1.1"),)
        assert str(found[0].changed[0]) == "unsloth 2026.10.9 -> 2027.1.1"
        assert found[0].side == "above"
        assert found[0].stratum == "eager/dense/unsloth/H100-80GB"
        assert found[0].error == pytest.approx(0.05, abs=0.01)
        assert found[0].error > found[0].bound > 0
        assert found[0].beyond == (eager_row().point,)
        assert found[0].to_json()["changed"] == [{"package": "unsloth", "old": ["2026.10.9"], "new": "2027.1.1"}]

    def test_a_version_that_needs_less_is_found_too(self) -> None:
        found = find_drift(scaled([eager_row()], 0.9), shipped())
        assert [(one.side, one.changed) for one in found] == [("below", ())]
        assert found[0].error < -found[0].bound

    def test_another_version_that_needs_the_same_is_no_drift(self) -> None:
        assert find_drift(scaled(committed(), 1.0, torch="2.12.0+cu130"), shipped()) == []

    def test_old_and_new_versions_of_one_point_are_kept_apart(self) -> None:
        rows = [eager_row(), *scaled([eager_row()], 1.1, unsloth="2027.1.1")]
        found = find_drift(rows, shipped())
        assert [(one.points, len(one.beyond)) for one in found] == [(1, 1)]

    def test_the_worst_comes_first(self) -> None:
        rows = [row for row in committed() if row.execution_path == "eager"][:40]
        found = find_drift([*scaled(rows[:20], 1.05, unsloth="3"), *scaled(rows[20:], 1.2, unsloth="4")], shipped())
        assert [abs(one.error) for one in found] == sorted((abs(one.error) for one in found), reverse=True)
        assert found[0].changed[0].new == "4"


class TestCompare:
    def test_a_calibration_has_smaller_errors_and_bounds_than_the_structure(self) -> None:
        groups = {one.name: one for one in errors_of(observed(committed()), STRUCTURAL, shipped())}
        assert groups["together"].points == sum(one.points for name, one in groups.items() if name != "together")
        assert groups["generated/dense"].after.middle < groups["generated/dense"].before.middle
        assert groups["block_compiled/dense"].after.margin < groups["block_compiled/dense"].before.margin
        assert groups["together"].after.covered > 0.95
        assert list(groups)[-1] == "together"

    def test_without_points_there_are_no_errors(self) -> None:
        assert errors_of([], STRUCTURAL, shipped()) == ()

    def test_what_differs_is_named_and_what_does_not_is_left_out(self) -> None:
        found = differences(STRUCTURAL, shipped())
        assert found["points"] == [0, shipped().points]
        assert found["versions"]["torch"] == [None, ["2.11.0"]]
        assert found["residuals"]["eager"] == [None, len(shipped().residuals["eager"])]
        same = differences(shipped(), shipped())
        assert same["shared_points"] == shipped().points
        assert (same["versions"], same["corrections"], same["residuals"]) == ({}, {}, {})


class TestRows:
    def test_documents_are_read_back_as_they_were(self) -> None:
        rows = list(committed()[:3])
        assert read_rows(documents_of(rows)) == rows
        assert [row.point for row in committed_rows()] == [row.point for row in committed()]
        assert len(read_files(sorted(MEASUREMENTS.glob("*.jsonl")))) == len(committed())

    @pytest.mark.parametrize(
        ("data", "key"),
        [
            ({}, "measurements"),
            ([], "measurements"),
            ([1], "measurements[0]"),
            ([{"schema_version": 1}], "measurements[0].point"),
            ([{**documents_of([eager_row()])[0], "job": {}}], "measurements[0]"),
        ],
    )
    def test_what_is_no_measurement_is_refused_by_its_place(self, data: object, key: str) -> None:
        with pytest.raises(EvidenceError) as refused:
            read_rows(data)
        assert refused.value.key == key

    def test_more_than_may_be_are_refused(self) -> None:
        with pytest.raises(EvidenceError, match="1 to 1"):
            read_rows(documents_of(committed()[:2]), most=1)
