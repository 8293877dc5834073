"""Sweeps: each measurement in the file at once, finished points not run again, groups that end early."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from probes.errors import EvidenceError, ProbeUnavailable
from probes.files import read_documents
from probes.lock import held
from probes.points import Point
from probes.protocol import Progress
from probes.supervise import Options
from probes.sweep import outcomes, sweep
from tests.probes.children import WELL, child
from tests.probes.common import points

BY_LENGTH = """
import pathlib
log = pathlib.Path(TOLD) / "runs"
lengths = [p["job"]["sequence_length"] for p in request["points"]]
with log.open("a") as file:
    file.write(json.dumps(lengths) + "\\n")
rules = json.loads((log.parent / "rules").read_text())
for index, length in enumerate(lengths):
    progress(index, "forward", 1)
    rule = rules.get(str(length), "ok")
    if rule == "abort":
        os.abort()
    elif rule == "unavailable":
        failed("unavailable", index, "the disk is full")
        break
    elif rule == "ok":
        measured(index)
    else:
        failed(rule, index)
        break
"""
"""Ends each point as the file of rules says for its length, and notes what it was asked for."""


class Bench:
    """A sweep over points whose endings are ruled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out.jsonl"
        self.options = Options(child=child(folder, BY_LENGTH), time_limit_seconds=30)
        self.rule()

    def rule(self, **rules: str) -> None:
        named = {name.lstrip("_"): rule for name, rule in rules.items()}
        (self.folder / "rules").write_text(json.dumps(named))

    def points(self, *lengths: int) -> Sequence[Point]:
        return points(*lengths)

    def sweep(self, *groups: Sequence[Point]) -> list[tuple[int, str]]:
        return [(m.sequence_length, m.outcome) for m in sweep(groups, self.out, self.options)]

    def runs(self) -> list[list[int]]:
        """The lengths of each process since the last time."""
        log = self.folder / "runs"
        found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        log.unlink(missing_ok=True)
        return found

    def rows(self) -> list[tuple[int, str]]:
        return [(row["sequence_length"], row["outcome"]) for row in read_documents(self.out)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_group_shares_a_process_and_groups_do_not(bench: Bench) -> None:
    measured = bench.sweep(bench.points(16, 32), bench.points(64))
    assert bench.runs() == [[16, 32], [64]]
    assert measured == bench.rows() == [(16, "ok"), (32, "ok"), (64, "ok")]


@pytest.mark.parametrize("outcome", ["ok", "out_of_memory", "host_out_of_memory", "not_supported"])
def test_a_finished_point_is_not_run_again(bench: Bench, outcome: str) -> None:
    bench.rule(_32=outcome)
    bench.sweep(bench.points(16), bench.points(32))
    bench.runs()
    assert bench.sweep(bench.points(16), bench.points(32), bench.points(64)) == [(64, "ok")]
    assert bench.runs() == [[64]]


def test_a_crash_is_run_again(bench: Bench) -> None:
    bench.rule(_32="abort")
    assert bench.sweep(bench.points(32)) == [(32, "crashed")]
    bench.rule()
    assert bench.sweep(bench.points(32)) == [(32, "ok")]
    assert bench.rows() == [(32, "crashed"), (32, "ok")]


def test_a_point_that_is_listed_twice_is_run_once(bench: Bench) -> None:
    assert bench.sweep(bench.points(16), bench.points(16)) == [(16, "ok")]


def test_a_part_of_a_group_that_is_finished_is_left_out_of_its_process(bench: Bench) -> None:
    bench.sweep(bench.points(32))
    bench.runs()
    bench.sweep(bench.points(16, 32, 64))
    assert bench.runs() == [[16, 64]]


@pytest.mark.parametrize("ending", ["abort", "out_of_memory"])
def test_the_rest_of_a_group_that_ended_early_runs_each_alone(bench: Bench, ending: str) -> None:
    bench.rule(_16=ending, _32=ending)
    outcome = {"abort": "crashed"}.get(ending, ending)
    assert bench.sweep(bench.points(8, 16, 32, 64)) == [(8, "ok"), (16, outcome), (32, outcome), (64, "ok")]
    assert bench.runs() == [[8, 16, 32, 64], [32], [64]]


def test_each_is_in_the_file_before_the_next_begins(bench: Bench) -> None:
    seen: list[tuple[int, int]] = []

    def look(point: Point, _: Progress) -> None:
        seen.append((point.sequence_length, len(bench.rows()) if bench.out.exists() else 0))

    sweep([bench.points(16, 32), bench.points(64)], bench.out, bench.options, on_progress=look)
    # The process runs ahead of its parent, which takes the events in order.
    assert seen == [(16, 0), (32, 1), (64, 2)]


def test_what_was_measured_stays_where_the_machine_lacks_something_later(bench: Bench) -> None:
    bench.rule(_32="unavailable")
    with pytest.raises(ProbeUnavailable, match="the disk is full"):
        bench.sweep(bench.points(16), bench.points(32), bench.points(64))
    assert bench.rows() == [(16, "ok")]


def test_a_file_that_is_none_is_found_before_anything_runs(bench: Bench) -> None:
    bench.out.write_text("{half a li")
    with pytest.raises(EvidenceError, match="line 1"):
        bench.sweep(bench.points(16))
    assert bench.runs() == []


def test_a_file_that_another_sweep_writes_is_left_to_it(bench: Bench) -> None:
    with held(bench.out), pytest.raises(EvidenceError, match=f"is being written by process {os.getpid()} on"):
        bench.sweep(bench.points(16))
    assert bench.runs() == []
    assert bench.sweep(bench.points(16)) == [(16, "ok")]


def test_what_is_no_file_cannot_be_gone_on_from(bench: Bench) -> None:
    with pytest.raises(EvidenceError, match="/dev/null: is no file that can be read again"):
        sweep([bench.points(16)], Path("/dev/null"), bench.options)
    assert bench.runs() == []


def test_a_measurement_that_the_file_does_not_take_reaches_the_caller_before_the_error(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, _: object) -> None:
        raise EvidenceError(f"{path}: cannot be written")

    heard: list[int] = []
    monkeypatch.setattr("probes.sweep.append_document", full)
    with pytest.raises(EvidenceError, match="cannot be written"):
        sweep(
            [bench.points(16), bench.points(32)],
            bench.out,
            bench.options,
            on_measurement=lambda measured: heard.append(measured.sequence_length),
        )
    assert heard == [16]


def test_how_the_points_of_a_sweep_ended_is_read_from_its_file_whenever_that_was(bench: Bench) -> None:
    bench.rule(_16="abort", _32="out_of_memory")
    bench.sweep(bench.points(16), bench.points(32))
    assert outcomes(bench.points(16, 32, 64), bench.out) == ["crashed", "out_of_memory"]
    bench.rule()
    bench.sweep(bench.points(16), bench.points(32))
    assert outcomes(bench.points(16, 32), bench.out) == ["ok", "out_of_memory"]


def test_nothing_to_do_starts_nothing(bench: Bench) -> None:
    assert bench.sweep() == []
    assert bench.runs() == []


def test_a_full_disk_stops_the_sweep_with_a_clear_error(tmp_path: Path, full_disk: Path) -> None:
    out = full_disk / "out.jsonl"
    (full_disk / "filler").write_bytes(b"x" * 60_000)
    options = Options(child=child(tmp_path, WELL))
    with pytest.raises(EvidenceError, match="no space left"):
        sweep([points(16)] * 1 + [points(length) for length in range(17, 40)], out, options)
    assert all(row["outcome"] == "ok" for row in read_documents(out))
