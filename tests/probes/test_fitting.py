"""Fitting: what the committed measurements give, and that a fit finds what is there and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random
from statistics import median

import pytest

from benchmarks.figures import draw_errors, draw_peaks
from benchmarks.promises import (
    BOUND_MIDDLE,
    COVERAGE,
    DEVICE_MIDDLE_BYTES,
    HOST_MIDDLE,
    PROMISES,
    RESERVED_MIDDLE,
    Promise,
)
from ctxplan.calibrations import shipped
from estimator.calibration.document import STRUCTURAL, WIDTHS
from probes.comparison import Row, read_rows
from probes.errors import FitError
from probes.fitting.coefficients import Equation, is_better, solve
from probes.fitting.fit import fit
from probes.fitting.fragmentation import MIB, Point, fragmentation_of
from probes.fitting.judge import Judged, coverage, judge, middle
from probes.fitting.observations import Observation, observations
from probes.fitting.residuals import cross_fitted
from probes.fitting.split import LEFT_OUT, is_left_out

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return read_rows(ROOT / "evidence" / "measurements")


@pytest.fixture(scope="module")
def observed(rows: list[Row]) -> list[Observation]:
    return observations(rows)


@pytest.fixture(scope="module")
def unseen(observed: list[Observation]) -> list[Judged]:
    """The families that no fit has seen, as the shipped calibration answers."""
    return judge([one for one in observed if is_left_out(one.family)], shipped())


def equations(multiples: dict[str, float], *, count: int = 24, noise: float = 0.0) -> list[Equation]:
    """Parts of which the structure misses so many tensors of each width, with an error relative to their size."""
    dice = Random(7)
    made = []
    for number in range(count):
        widths = {width: dice.randrange(10**6, 10**9) for width in ("hidden", "mlp", "logits")}
        missing = int(sum(multiples.get(width, 0) * size for width, size in widths.items()))
        measured = 12 * sum(widths.values())
        missing += int(noise * dice.gauss(0, 1) * measured)
        made.append(Equation(missing, widths, dict.fromkeys(widths, 2.0), measured, f"family {number % 4}"))
    return made


class TestCoefficients:
    def test_multiples_that_are_there_are_found(self) -> None:
        found = solve(equations({"hidden": 1.5, "mlp": -0.75, "logits": 0.25}))
        assert found == pytest.approx({"hidden": 1.5, "mlp": -0.75, "logits": 0.25}, abs=0.05)

    def test_no_width_is_counted_less_than_not_at_all(self) -> None:
        found = solve(equations({"hidden": -9.0}))
        assert found["hidden"] == pytest.approx(-2.0, abs=1e-3)

    def test_nothing_to_explain_gives_no_coefficient(self) -> None:
        assert solve(equations({})) == {}

    def test_few_points_are_pulled_towards_the_structure(self) -> None:
        one = Equation(10**6, {"hidden": 10**6, "mlp": 10**6}, {}, 10**9, "llama")
        assert all(abs(multiple) < 0.5 for multiple in solve([one]).values())

    def test_coefficients_that_carry_over_to_other_families_are_kept(self) -> None:
        assert is_better(equations({"mlp": 1.0}, noise=0.001))

    def test_those_of_chance_alone_are_not(self) -> None:
        assert not is_better(equations({}, noise=0.01))


class TestFragmentation:
    def points(self, share: float, constant: int, count: int, family: str = "llama") -> list[Point]:
        dice = Random(3)
        sizes = [(dice.randrange(2**30, 2**36), dice.random()) for _ in range(count)]
        moving = [int(allocated * part) for allocated, part in sizes]
        return [
            Point(family, reserved=allocated + int(share * part) + constant, allocated=allocated, moving=part)
            for (allocated, _), part in zip(sizes, moving, strict=True)
        ]

    def test_the_share_and_the_constant_that_are_there_are_found_whatever_one_point_says(self) -> None:
        strange = Point("llama", reserved=2**36, allocated=2**35, moving=2**34)
        found = fragmentation_of([*self.points(0.04, 20 * MIB, 12), strange])
        assert found.share == pytest.approx(0.04, abs=2e-4)
        assert found.constant_bytes == 20 * MIB
        assert max(found.residuals) == pytest.approx(2**36 / (2**35 + 0.04 * 2**34 + 20 * MIB) - 1, rel=1e-3)

    def test_residuals_are_by_the_fit_without_the_family(self) -> None:
        """Each family on its own would leave none: the bound has to show that the next one may fragment otherwise."""
        found = fragmentation_of([*self.points(0.0, 0, 12), *self.points(0.05, 0, 12, family="qwen2")])
        assert len(found.residuals) == 24
        assert sum(residual > 0.001 for residual in found.residuals) >= 10
        assert sum(residual < -0.001 for residual in found.residuals) >= 10

    def test_a_few_points_give_no_constant(self) -> None:
        assert fragmentation_of(self.points(0.04, 20 * MIB, 3)).constant_bytes == 0

    def test_less_reserved_than_allocated_is_never_expected(self) -> None:
        found = fragmentation_of(self.points(-0.02, -5 * MIB, 8))
        assert (found.share, found.constant_bytes) == (0, 0)


class TestFit:
    def test_it_is_the_shipped_one_and_takes_less_than_ten_seconds(self, rows: list[Row]) -> None:
        started = time.perf_counter()
        fitted = fit([row.measured for row in rows])
        assert time.perf_counter() - started < 10
        assert fitted == shipped()

    def test_families_kept_for_judging_are_in_no_fit(self, observed: Sequence[Observation]) -> None:
        judging = {one.measured.point for one in observed if is_left_out(one.family)}
        assert judging
        assert judging.isdisjoint(shipped().digests)
        families = {one.family for one in observed}
        assert families >= LEFT_OUT
        assert (len(LEFT_OUT), len(families)) == (5, 11)

    def test_a_users_own_leaves_none_out_unless_told(self, rows: list[Row]) -> None:
        mistral = [row.measured for row in rows if "istral" in str(row.measured.job["model"])]
        assert fit(mistral, leave_out=lambda _: False).points == len({one.point for one in mistral})
        with pytest.raises(FitError):
            fit(mistral)

    def test_the_order_of_the_rows_does_not_matter(self, rows: list[Row]) -> None:
        some = [row.measured for row in rows][::5]
        assert fit(some).id == fit(some[::-1]).id

    def test_rows_of_the_cpu_are_never_fitted(self, rows: list[Row]) -> None:
        one = rows[0].measured.model_copy(update={"gpu": None, "execution_path": "cpu"})
        assert observations([Row(measured=one)]) == []

    def test_every_coefficient_is_of_a_known_width(self) -> None:
        assert all(set(found) <= set(WIDTHS) for found in shipped().corrections.values())

    def test_a_residual_is_of_a_fit_without_its_family(self, observed: Sequence[Observation]) -> None:
        """The only family of a kind is then expected by the structure alone."""
        sinks = [one for one in observed if one.kind == "sinks"]
        for one, residual in cross_fitted(sinks):
            alone = one.peak_bytes / one.simulated(STRUCTURAL).peak.allocated_bytes - 1
            assert residual == alone


class TestPromises:
    """On families that no fit has seen; docs/accuracy.md shows the numbers."""

    @pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.path)
    def test_the_errors_of_a_path_keep_their_limits(self, promise: Promise, unseen: list[Judged]) -> None:
        errors = [abs(one.error) for one in unseen if one.one.path == promise.path]
        assert errors
        assert median(errors) <= promise.middle
        assert max(errors) <= promise.worst

    def test_the_bound_holds_and_is_not_wide(self, unseen: list[Judged]) -> None:
        assert coverage(unseen) >= COVERAGE
        assert median(one.margin for one in unseen) <= BOUND_MIDDLE

    def test_reserved_device_and_host_bytes_keep_their_limits(self, unseen: list[Judged]) -> None:
        reserved = middle(unseen, lambda one: one.reserved_error)
        device = middle(unseen, lambda one: one.device_error_bytes)
        host = middle(unseen, lambda one: one.host_error)
        assert reserved is not None
        assert device is not None
        assert host is not None
        assert reserved <= RESERVED_MIDDLE
        assert device <= DEVICE_MIDDLE_BYTES
        assert host <= HOST_MIDDLE

    def test_no_point_that_ran_out_of_memory_is_said_to_fit(self, rows: list[Row]) -> None:
        ended = [row for row in rows if row.measured.outcome == "out_of_memory" and row.measured.gpu]
        assert [row.measured.point for row in ended if row.estimate.verdict == "fits"] == []


class TestFiles:
    @pytest.mark.parametrize("script", ["calibration", "accuracy"])
    def test_what_the_scripts_write_is_what_is_committed(self, script: str) -> None:
        done = subprocess.run(
            [sys.executable, f"scripts/{script}", "--check"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    def test_the_figures_are_drawn_from_the_same_points(self, observed: Sequence[Observation], tmp_path: Path) -> None:
        judged = judge(observed, shipped())
        for name, draw in (("peaks", draw_peaks), ("errors", draw_errors)):
            draw(judged, tmp_path / f"{name}.svg")
            drawn = (tmp_path / f"{name}.svg").read_text(encoding="utf-8")
            assert (ROOT / "docs" / "figures" / f"{name}.svg").read_text(encoding="utf-8") == drawn

    def test_the_shipped_file_is_read_back_as_it_was_fitted(self) -> None:
        document = json.loads((ROOT / "ctxplan" / "calibration.json").read_text(encoding="utf-8"))
        assert document["id"] == shipped().id
