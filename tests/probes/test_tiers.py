"""A tier is confirmed by its job at full depth on a real card, and by nothing less."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ctxplan import Planner
from ctxplan.tiers import Target, Tier, find_tier, length_below, target_of
from estimator import Job, MaxContext, parse_job
from probes.changes import SETTINGS, smallest_changes
from probes.errors import PointError
from probes.host import host_ram
from probes.measurement import Measurement, validate
from probes.points import Point
from probes.rows import read_confirmation
from probes.tiers import Machine, confirm, faults_of, from_measurements
from tests.probes.documents import measured, measured_on_the_cpu, out_of_memory

PLANNER = Planner(offline=True)
GIB = 2**30
TIER = find_tier("llama-3.3-70b-qlora-89k")
LONGEST_HOST = find_tier("llama-3.3-70b-qlora-longest-125gib-host")
LONGEST_CARD = find_tier("llama-3.3-70b-qlora-longest-80gb")
H100 = Machine(gpu="NVIDIA H100 80GB HBM3", total_bytes=85_520_809_984, host_ram_bytes=256 * GIB)
H200 = Machine(gpu="NVIDIA H200", total_bytes=150_754_820_096, host_ram_bytes=256 * GIB)
SMALL_HOST = replace(H100, host_ram_bytes=125 * GIB)
COMMAND = "ctxplan tier confirm NAME"
COMMITTED = sorted((Path(__file__).parents[2] / "evidence" / "tiers").glob("*.json"))


def step(loss: float | None = 11.8) -> dict[str, Any]:
    peak = {"allocated_bytes": 74_530_000_000, "reserved_bytes": 75_000_000_000}
    parts = {"forward": peak, "backward": peak, "optimizer": peak}
    both = {"peak_allocated_bytes": 74_530_000_000, "peak_reserved_bytes": 75_000_000_000}
    return {**parts, **both, "device_used_bytes": 76_000_000_000, "loss": loss, "seconds": 290.0}


def ran(point: Point, **changes: Any) -> Measurement:
    """A run at full depth that ended well, on an H100."""
    steps = [step() for _ in range(point.steps)]
    fields = {"num_hidden_layers": 80, "steps": steps, "steps_run": point.steps, "environment_asked": {}, "cap": None}
    if point.cap_bytes:
        fields["cap"] = {"total_bytes": point.cap_bytes, "ballast_bytes": GIB, "not_emulated": []}
    return measured(point, **{**fields, **changes})


class Bench:
    """Runs points by a function, and remembers them."""

    def __init__(self, run: Callable[[Point], Measurement] = ran) -> None:
        self.run = run
        self.points: list[Point] = []

    def __call__(self, point: Point) -> Measurement:
        self.points.append(point)
        return self.run(point)


def document(bench: Bench, machine: Machine = H100, tier: Tier = TIER, **changes: Any) -> dict[str, Any]:
    return confirm(tier, bench, machine, planner=PLANNER, command=COMMAND, **changes)


class TestWhatIsRun:
    def test_where_the_default_fits_the_default_is_run_as_users_run_it(self) -> None:
        bench = Bench()
        found = document(bench)
        (point,) = bench.points
        assert found["changes"] == []
        assert found["job"] == found["default_job"]
        assert (point.trainer, point.cap_bytes) == ("sft", None)
        assert point.job.num_hidden_layers is None
        assert point.job.max_seq_length == point.sequence_length == 89_389
        assert point.steps >= 2

    def test_where_pinned_buffers_exceed_the_hosts_ram_pageable_ones_are_used_and_nothing_else(self) -> None:
        bench = Bench()
        found = document(bench, SMALL_HOST)
        assert [point.job.pin_host_memory for point in bench.points] == [False]
        (change,) = found["changes"]
        assert (change["key"], change["from"], change["to"]) == ("pin_host_memory", None, False)
        assert "this host has 125.0 GiB" in change["why"]
        assert found["default_job"]["pin_host_memory"] is None
        assert {**found["default_job"], "pin_host_memory": False} == found["job"]

    def test_where_nothing_fits_the_host_nothing_is_run_and_the_reason_is_written(self) -> None:
        bench = Bench()
        found = document(bench, replace(H100, host_ram_bytes=100 * GIB))
        assert bench.points == []
        assert not found["confirmed"]
        assert "host RAM" in found["reason"]
        assert found["measurements"] == []

    def test_a_smaller_card_is_not_tried(self) -> None:
        bench = Bench()
        found = document(bench, Machine(gpu="NVIDIA L40S", total_bytes=48 * GIB, host_ram_bytes=None))
        assert bench.points == []
        assert "the card leaves" in found["reason"]

    def test_a_larger_card_is_held_down_to_the_one_of_the_claim(self) -> None:
        bench = Bench(lambda point: ran(point, gpu="NVIDIA H200"))
        found = document(bench, H200)
        assert bench.points[0].cap_bytes == 81_082 * 2**20
        assert found["emulated"]
        assert not found["confirmed"]
        assert "stood in for a smaller card" in found["reason"]

    def test_an_a100_of_80_gb_is_planned_as_what_it_is(self) -> None:
        bench = Bench(lambda point: ran(point, gpu="NVIDIA A100-SXM4-80GB"))
        found = document(bench, replace(H100, gpu="NVIDIA A100-SXM4-80GB"))
        assert bench.points[0].job.gpu == "A100-80GB"
        assert bench.points[0].cap_bytes is None
        assert found["confirmed"]

    def test_a_default_that_runs_out_all_the_same_is_changed_once_and_both_runs_are_written(self) -> None:
        bench = Bench(lambda point: ran(point) if point.job.unsloth_tiled_mlp else out_of_memory(point))
        found = document(bench)
        # The embedding is on the host by default at this length, and the batch is padding-free.
        assert [point.job.unsloth_tiled_mlp for point in bench.points] == [False, True]
        assert [change["key"] for change in found["changes"]] == ["unsloth_tiled_mlp"]
        assert [one["outcome"] for one in found["measurements"]] == ["out_of_memory", "ok"]
        assert found["confirmed"]

    def test_a_crash_is_not_mended_by_a_change(self) -> None:
        bench = Bench(lambda point: ran(point, outcome="crashed", detail="signal 11"))
        found = document(bench)
        assert len(bench.points) == 1
        assert found["reason"] == "crashed: signal 11"
        assert not found["confirmed"]


class TestWhatConfirms:
    def test_a_real_card_full_depth_and_finite_steps_do(self) -> None:
        found = document(Bench(), SMALL_HOST)
        assert found["confirmed"] is True
        assert found["reason"] is None
        assert found["emulated"] is False
        assert (found["num_hidden_layers"], found["sequence_length"]) == (80, 89_389)
        assert len(found["steps"]) >= 2
        assert set(found["steps"][0]) == {"loss", "seconds", "peak_allocated_bytes"}

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"num_hidden_layers": 79}, "79 layers ran of 80"),
            ({"sequence_length": 89_388}, "89388 tokens are fewer"),
            ({"gpu": "NVIDIA H200"}, "none of the cards"),
            ({"gpu": "NVIDIA A100-SXM4-40GB"}, "none of the cards"),
            ({"steps": [step()], "steps_run": 1}, "1 steps have a finite loss"),
            ({"steps": [step(), step(float("nan"))]}, "1 steps have a finite loss"),
            ({"steps": [step(), step(None), step()]}, "2 steps have a finite loss, of 3"),
            ({"cap": {"total_bytes": GIB, "ballast_bytes": 1, "not_emulated": []}}, "stood in"),
            ({"outcome": "timed_out", "detail": None}, "timed_out"),
        ],
    )
    def test_anything_less_does_not_and_says_why(self, changes: dict[str, Any], said: str) -> None:
        found = document(Bench(lambda point: ran(point, **changes)))
        assert found["confirmed"] is False
        assert said in found["reason"]

    def test_a_run_on_the_cpu_backend_does_not(self) -> None:
        found = document(Bench(lambda point: measured_on_the_cpu(point, num_hidden_layers=80)))
        assert not found["confirmed"]
        assert "CPU" in found["reason"]

    def test_the_estimate_beside_it_is_of_the_job_that_ran(self) -> None:
        found = document(Bench(lambda point: ran(point, peak_allocated_bytes=74_000_000_000)), SMALL_HOST)
        expected = PLANNER.estimate(parse_job(found["job"])).peak_allocated_bytes.expected
        assert found["estimate"]["expected"] == expected
        assert found["estimate"]["error"] == pytest.approx(expected / 74_000_000_000 - 1)
        assert found["estimate"]["verdict"] == "fits"

    def test_the_file_is_plain_json_with_the_keys_that_others_read(self) -> None:
        found = document(Bench())
        assert json.loads(json.dumps(found)) == found
        assert found["command"] == COMMAND
        assert found["measurements"][0]["schema_version"] == 1
        assert found["stack"]["torch"]


class TestTheLongest:
    @pytest.mark.parametrize(("tier", "limit"), [(LONGEST_HOST, "host"), (LONGEST_CARD, "gpu")])
    def test_its_length_is_three_percent_below_what_is_expected_to_fit(self, tier: Tier, limit: str) -> None:
        target = target_of(tier, PLANNER)
        planned = PLANNER.max_context(tier.job)
        assert planned.limited_by == limit
        ends = [planned.expected, *(first - 1 for first, _ in planned.does_not_fit)]
        assert target.length in [int(0.97 * end) for end in ends]
        assert all(not first <= target.length <= last for first, last in planned.does_not_fit)
        assert PLANNER.estimate(target.job).verdict != "does_not_fit"

    def test_a_last_range_narrower_than_three_percent_is_passed_over(self) -> None:
        def planned(*gaps: tuple[int, int]) -> MaxContext:
            return replace(PLANNER.max_context(TIER.job), expected=100_000, does_not_fit=gaps)

        assert length_below(planned(), 0.03) == 97_000
        assert length_below(planned((90_000, 96_000)), 0.03) == 97_000
        assert length_below(planned((90_000, 98_000)), 0.03) == int(0.97 * 89_999)

    def test_more_host_ram_than_the_claim_allows_does_not_confirm_it(self) -> None:
        host = dict.fromkeys(("rss_bytes", "pinned_allocated_bytes", "pinned_reserved_bytes", "total_ram_bytes"))
        for taken, confirmed in ((124 * GIB, True), (126 * GIB, False)):
            bench = Bench(lambda point, taken=taken: ran(point, host={**host, "peak_rss_bytes": taken}))  # type: ignore[misc]
            assert document(bench, tier=LONGEST_HOST)["confirmed"] is confirmed

    def test_the_cards_limit_needs_a_larger_host(self) -> None:
        assert document(Bench(), tier=LONGEST_CARD)["confirmed"]
        assert not document(Bench(), SMALL_HOST, tier=LONGEST_CARD)["confirmed"]


class TestFromMeasurements:
    def test_a_run_of_exactly_that_job_is_taken_with_its_changes(self) -> None:
        bench = Bench()
        live = document(bench, SMALL_HOST)
        host = dict.fromkeys(("rss_bytes", "peak_rss_bytes", "pinned_allocated_bytes", "pinned_reserved_bytes"))
        row = ran(bench.points[0], host={**host, "total_ram_bytes": 125 * GIB})
        found = from_measurements(TIER, [row], planner=PLANNER, command=COMMAND)
        for key in ("confirmed", "job", "default_job", "changes", "estimate", "steps"):
            assert found[key] == live[key], key

    def others(self) -> dict[str, Measurement]:
        bench = Bench()
        document(bench)
        (point,) = bench.points

        def of(**changes: Any) -> Point:
            return replace(point, job=replace(point.job, **changes))

        return {
            "a twin": ran(of(num_hidden_layers=3), num_hidden_layers=3),
            "another rank": ran(of(r=16)),
            "a longer context": ran(of(max_seq_length=90_000)),
            "a dense batch": ran(of(padding_free=False, block_compile=False)),
            "another model": ran(of(model="unsloth/Llama-3.1-8B-Instruct-bnb-4bit"), num_hidden_layers=32),
            "a bare loop": ran(replace(point, trainer="loop")),
            "variables of its own": ran(point, environment_asked={"UNSLOTH_DISABLE_DOUBLE_BUFFER": "1"}),
        }

    def test_no_other_run_is_taken(self) -> None:
        for name, row in self.others().items():
            with pytest.raises(PointError, match="no measurement is of the job"):
                from_measurements(TIER, [row], planner=PLANNER, command=COMMAND)
            assert name

    def test_of_several_the_one_that_ended_well_on_a_real_card_is_taken(self) -> None:
        bench = Bench()
        document(bench)
        (point,) = bench.points
        capped = ran(replace(point, cap_bytes=80 * GIB), gpu="NVIDIA H200")
        rows = [capped, out_of_memory(point, num_hidden_layers=80, environment_asked={}), ran(point)]
        assert from_measurements(TIER, rows, planner=PLANNER, command=COMMAND)["confirmed"]
        assert from_measurements(TIER, rows[:2], planner=PLANNER, command=COMMAND)["emulated"]
        failed = from_measurements(TIER, rows[1:2], planner=PLANNER, command=COMMAND)
        assert (failed["confirmed"], failed["reason"]) == (False, "out_of_memory")


@pytest.mark.parametrize("file", COMMITTED, ids=[file.stem for file in COMMITTED])
def test_a_committed_confirmation_follows_from_the_measurements_in_it(file: Path) -> None:
    found = json.loads(file.read_text(encoding="utf-8"))
    tier = find_tier(file.stem)
    rows = [validate(one) for one in found["measurements"]]
    target = Target(
        replace(tier.job, max_seq_length=found["claimed_sequence_length"]), found["claimed_sequence_length"], None
    )
    faults = faults_of(tier, target, rows[-1] if rows else None, PLANNER)
    assert found["confirmed"] is (not faults)
    if found["confirmed"]:
        assert found["peak_allocated_bytes"] == rows[-1].peak_allocated_bytes
        assert found["gpu"] == rows[-1].gpu
        answer = PLANNER.estimate(parse_job(found["job"]))
        assert answer.peak_allocated_bytes.expected == pytest.approx(found["peak_allocated_bytes"], rel=0.01)
        assert answer.verdict != "does_not_fit"


@pytest.mark.parametrize("file", COMMITTED, ids=[file.stem for file in COMMITTED])
def test_the_estimate_in_a_committed_confirmation_is_what_is_estimated_now(file: Path) -> None:
    rows, command = read_confirmation(file)
    again = from_measurements(find_tier(file.stem), rows, planner=PLANNER, command=command)
    assert again == json.loads(file.read_text(encoding="utf-8")), "make tiers"


class TestChanges:
    def job(self, **changes: Any) -> Job:
        return replace(target_of(TIER, PLANNER).job, **changes)

    def test_nothing_is_changed_where_the_job_fits(self) -> None:
        assert smallest_changes(self.job(), PLANNER) == (self.job(), ())

    def test_a_card_that_is_too_small_for_the_default_gets_the_one_change_that_saves_enough(self) -> None:
        job = self.job(gpu={"name": "H100-80GB", "total_bytes": 67 * GIB})
        found = smallest_changes(job, PLANNER)
        assert found
        assert [change.key for change in found[1]] == ["unsloth_tiled_mlp"]
        assert PLANNER.estimate(found[0]).verdict != "does_not_fit"

    def test_two_changes_are_made_only_where_one_is_not_enough(self) -> None:
        gpu = {"name": "H100-80GB", "total_bytes": 67 * GIB}
        found = smallest_changes(self.job(gpu=gpu, host_ram_bytes=125 * GIB), PLANNER)
        assert found
        assert [change.key for change in found[1]] == ["pin_host_memory", "unsloth_tiled_mlp"]

    def test_a_change_that_the_job_cannot_take_is_passed_over(self) -> None:
        gpu = {"name": "RTX-4090-24GB", "total_bytes": 10 * GIB}
        job = parse_job({"model": "google/gemma-2-9b-it", "gpu": gpu, "max_seq_length": 8192, "block_compile": True})
        found = smallest_changes(job, PLANNER)
        assert found is None or "padding_free" not in {change.key for change in found[1]}

    def test_every_setting_is_a_key_of_a_job(self) -> None:
        assert all(hasattr(self.job(), setting.key) for setting in SETTINGS)


class TestHostRam:
    def root(self, folder: Path, files: dict[str, str]) -> Path:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        return folder

    def test_it_is_what_is_available_and_no_more_than_the_control_group_allows(self, tmp_path: Path) -> None:
        meminfo = "MemTotal:       131072000 kB\nMemFree: 1 kB\nMemAvailable:   130000000 kB\nHugePages_Total: 0\n"
        own = {"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/memory.max": "125000000000\n"}
        files = {"proc/meminfo": meminfo, **own, "sys/fs/cgroup/a/b/memory.max": "max\n"}
        found = host_ram(self.root(tmp_path, files))
        assert tuple(found) == (131_072_000 * 1024, 130_000_000 * 1024, 125_000_000_000)
        assert found.usable_bytes == 125_000_000_000

    def test_a_control_group_of_version_1_without_a_limit_is_none(self, tmp_path: Path) -> None:
        limit = {"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}
        files = {"proc/meminfo": "MemTotal: 4 kB\nMemAvailable: 3 kB\n", **limit}
        assert host_ram(self.root(tmp_path, files)) == (4096, 3072, None)

    def test_a_machine_that_does_not_say_is_not_limited(self, tmp_path: Path) -> None:
        assert host_ram(tmp_path).usable_bytes is None
