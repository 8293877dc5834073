"""Every committed measurement is one: it keeps the schema, says what it measured and with what, and is described."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ctxplan.models import resolve_model
from estimator import job_to_json, parse_job
from probes.comparison import Row
from probes.measurement import Measurement, validate
from probes.points import Point

ROOT = Path(__file__).parents[2]
EVIDENCE = ROOT / "evidence"
README = (EVIDENCE / "README.md").read_text(encoding="utf-8")
FILES = sorted((EVIDENCE / "measurements").glob("*.jsonl"))
SCRATCH = "scratch script of 2026-11-22"
VOID = ("wrong_gpu", "neighbour")
"""Outcomes that say nothing about the point."""


def read(file: Path) -> list[Measurement]:
    return [validate(json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()]


ROWS = [(f"{file.stem}:{number}", one) for file in FILES for number, one in enumerate(read(file), start=1)]
MEASUREMENTS = [pytest.param(measurement, id=name) for name, measurement in ROWS]


def point_of(measurement: Measurement) -> Point:
    """The point again, from what the measurement keeps of it."""
    assert measurement.steps_asked is not None
    return Point(
        job=parse_job(measurement.job),
        trainer=measurement.trainer,
        steps=measurement.steps_asked,
        sample_lengths=measurement.sample_lengths,
        environment=measurement.environment_asked,
        cap_bytes=measurement.cap.total_bytes if measurement.cap else None,
    )


@pytest.mark.parametrize("measurement", MEASUREMENTS)
class TestEveryMeasurement:
    def test_names_its_stack(self, measurement: Measurement) -> None:
        stack, job = measurement.stack, parse_job(measurement.job)
        assert stack["torch"]
        assert stack["transformers"]
        if job.framework == "unsloth":
            assert stack["unsloth"]
            assert stack["unsloth_zoo"]
        assert measurement.gpu
        assert stack["driver"] or (measurement.instrument.startswith(SCRATCH) and "H100" in measurement.gpu)

    def test_has_its_job_in_the_whole_form_of_the_contract(self, measurement: Measurement) -> None:
        assert job_to_json(parse_job(measurement.job)) == measurement.job

    def test_carries_the_digest_of_its_point(self, measurement: Measurement) -> None:
        assert measurement.point == point_of(measurement).digest

    def test_ran_the_layers_and_the_length_of_its_job(self, measurement: Measurement) -> None:
        job = parse_job(measurement.job)
        layers = job.num_hidden_layers or resolve_model(job.model, offline=True).architecture.num_hidden_layers
        assert measurement.num_hidden_layers == layers
        assert measurement.sequence_length == (job.sequence_length or job.max_seq_length)

    def test_is_not_void(self, measurement: Measurement) -> None:
        assert measurement.outcome not in VOID

    def test_has_the_peaks_of_its_last_step(self, measurement: Measurement) -> None:
        if not measurement.steps or measurement.outcome != "ok":
            return
        last = measurement.steps[-1]
        assert last.peak_allocated_bytes == measurement.peak_allocated_bytes
        assert last.backward is not None
        assert last.backward.allocated_bytes == measurement.backward_peak_bytes
        assert 1 <= len(measurement.steps) <= measurement.steps_run


def described_files() -> dict[str, tuple[int, str]]:
    """Rows and command of each file, as the table of evidence/README.md gives them."""
    lines = re.findall(r"^\| `(measurements/[^`]+)` \| [^|]+ \| (\d+) \| ([^|]+) \|$", README, re.MULTILINE)
    return {name: (int(rows), command) for name, rows, command in lines}


def test_every_file_is_described_with_its_rows_and_the_command_that_made_it() -> None:
    assert {name: rows for name, (rows, _) in described_files().items()} == {
        f"measurements/{file.name}": len(read(file)) for file in FILES
    }
    for name, (_, command) in described_files().items():
        instruments = {m.instrument for m in read(EVIDENCE / name)}
        by_script = all(instrument.startswith(SCRATCH) for instrument in instruments)
        assert "scratch script" in command if by_script else "`ctxplan " in command


def test_every_field_of_a_measurement_is_explained() -> None:
    table = README.split("## A measurement")[1]
    cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.MULTILINE)
    explained = [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]
    assert sorted(explained) == sorted(Measurement.model_fields)


def test_the_changelog_and_the_table_count_the_rows_and_the_points_that_are_committed() -> None:
    rows = [measurement for _, measurement in ROWS]
    points = {(row.point, row.gpu) for row in rows}
    assert f"`evidence/`: {len(rows)} rows, {len(points)} distinct points," in (ROOT / "CHANGELOG.md").read_text()
    table = (ROOT / "docs" / "evidence.md").read_text().split("## What was measured")[1].split("##")[0]
    counts = re.findall(r"\| (\d+) \| (\d+) \| \d+ \|", table)
    assert [sum(int(pair[i]) for pair in counts) for i in (0, 1)] == [len(rows), len(points)]


SEVERAL_STEPS = [pytest.param(row, id=name) for name, row in ROWS if row.outcome == "ok" and len(row.steps) > 2]


@pytest.mark.parametrize("row", SEVERAL_STEPS)
def test_from_the_second_step_on_memory_repeats_as_the_manual_says(row: Measurement) -> None:
    """To the byte, but where routing moves rows between experts, or outliers columns to 16 bit (docs/probing.md)."""
    peaks = {step.peak_allocated_bytes or 0 for step in row.steps[1:]}
    moves = resolve_model(row.job["model"], offline=True).architecture.is_moe or row.job["load_in_8bit"]
    assert max(peaks) - min(peaks) <= (8 * 2**20 if moves else 0)


FRESH = [
    pytest.param(Row(measured=row), id=name)
    for name, row in ROWS
    if row.lengths_before == () and row.host and row.host.pinned_reserved_bytes is not None
]


INDUCTOR_COPIES = 3 * 2**29
"""Where weights train: the head's gradient in 32 bit and the head in 16, each rounded to a power of two, copied to
pinned memory while the kernel that overwrites them is tuned (evidence/README.md)."""


@pytest.mark.parametrize("row", FRESH)
def test_pinned_host_memory_of_a_fresh_process_is_what_was_estimated(row: Row) -> None:
    """Within 2 parts in a thousand; where nothing is offloaded, the trainer's pinned batch is under 4 MiB."""
    host = row.measured.host
    assert host
    assert host.pinned_reserved_bytes is not None
    planned = row.estimate.host_bytes.pinned
    tuned = INDUCTOR_COPIES if row.job.full_finetuning else 0
    assert host.pinned_reserved_bytes - tuned == pytest.approx(planned, rel=0.002, abs=2**22)
    pinned = row.job.pin_host_memory is not False
    assert bool(planned) == bool(row.measured.ran.inputs_offloaded and pinned)


def test_runs_of_fresh_processes_show_what_they_pinned() -> None:
    assert len(FRESH) >= 17


SNAPSHOTS = [(file, one) for file in sorted((EVIDENCE / "snapshots").glob("*.jsonl")) for one in read(file)]


@pytest.mark.parametrize("measurement", [pytest.param(one, id=f"{f.stem}-{i}") for i, (f, one) in enumerate(SNAPSHOTS)])
def test_a_snapshot_names_nearly_all_of_its_peak(measurement: Measurement) -> None:
    assert measurement.point == point_of(measurement).digest
    assert measurement.live_tensors
    assert measurement.peak_allocated_bytes
    named = sum(tensor.bytes for tensor in measurement.live_tensors)
    assert 0.99 * measurement.peak_allocated_bytes <= named <= measurement.peak_allocated_bytes


def test_the_report_of_the_gpu_tests_has_every_one_of_them_and_all_passed() -> None:
    report = max((EVIDENCE / "gpu-tests").glob("*.txt")).read_text(encoding="utf-8")
    written = (ROOT / "tests" / "gpu" / "test_probes.py").read_text(encoding="utf-8")
    passed = set(re.findall(r"::(test_\w+)\S* PASSED", report))
    assert passed == set(re.findall(r"^def (test_\w+)", written, re.MULTILINE))
    assert not re.search("FAILED|ERROR|SKIPPED", report)


class TestTheCampaignOnAnH100:
    FOLDER = EVIDENCE / "campaigns" / "qwen3-1.7b-h100-80gb-2026-11-25"

    def load(self, name: str) -> Any:
        return json.loads((self.FOLDER / name).read_text(encoding="utf-8"))

    def lines(self, name: str) -> list[Any]:
        return [json.loads(line) for line in (self.FOLDER / name).read_text(encoding="utf-8").splitlines()]

    def test_ended_with_a_calibration_that_answers(self) -> None:
        campaign = self.load("campaign.json")
        fitted = self.load("calibration.json")["id"]
        assert campaign["state"] == "done"
        assert campaign["outcome"]["activated"] is True
        assert campaign["calibration"] == fitted
        estimates = self.load("estimates.json")
        assert estimates["after"]["calibration"]["id"] == fitted != estimates["before"]["calibration"]["id"]

    def test_lost_nothing_and_counted_nothing_twice(self) -> None:
        audit, jobs = self.load("audit.json"), self.lines("jobs.jsonl")
        assert audit["findings"] == []
        assert audit["jobs"] == len(jobs) == self.load("campaign.json")["points"]
        for job in jobs:
            assert [event["kind"] for event in job["events"]] == ["submitted", "leased", "succeeded"]

    def test_measured_the_points_of_its_jobs_which_are_among_the_evidence(self) -> None:
        documents = [validate(row["document"]) for row in self.lines("measurements.jsonl")]
        assert [one.point for one in documents] == [job["digest"] for job in self.lines("jobs.jsonl")]
        committed = {one.model_dump_json() for _, one in ROWS}
        assert {one.model_dump_json() for one in documents} <= committed
