"""``ctxplan longest``, with a card and runs of ours, and the table that a person reads of measurements."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import application
from app.cli.measuring import show_measurements
from probes.errors import PointError
from probes.lock import held
from probes.measurement import Measurement
from probes.nvml import Card
from probes.points import Point
from probes.supervise import Options
from tests.probes.common import point
from tests.probes.documents import measured, out_of_memory

JOB: dict[str, Any] = {"model": "unsloth/Llama-3.2-1B-Instruct"}
CARD = Card(uuid="GPU-1", name="NVIDIA H100 80GB HBM3", total_bytes=85_520_809_984, free_bytes=0, driver="580")
END = 20_000


class Bench:
    """A card on which every length up to `END` runs."""

    def __init__(self) -> None:
        self.asked: list[Point] = []
        self.options: list[Options] = []
        self.indices: list[int | None] = []

    def find_card(self, device_index: int | None = None) -> Card:
        self.indices.append(device_index)
        return CARD

    def measure(self, points: list[Point], options: Options, **_: Any) -> list[Measurement]:
        self.asked += points
        self.options.append(options)
        return [measured(one) if one.sequence_length <= END else out_of_memory(one) for one in points]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    found = Bench()
    monkeypatch.setattr("probes.nvml.find_card", found.find_card)
    monkeypatch.setattr("probes.supervise.measure", found.measure)
    return found


def longest(*arguments: str, data: Any = JOB) -> Any:
    result = CliRunner().invoke(application, ["longest", *arguments], input=json.dumps(data))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_point_from_standard_input_is_for_the_card_that_is_there(bench: Bench) -> None:
    done = longest("-", "--json", "--high", "30000")
    answer = json.loads(done.stdout)
    assert (answer["longest_ok"], answer["limited_by"]) == (pytest.approx(END, abs=1024), "gpu")
    assert {asked.job.gpu for asked in bench.asked} == {"H100-80GB"}
    assert done.exit_code == 0


def test_the_options_of_a_probe_are_a_searchs_too(bench: Bench, tmp_path: Path) -> None:
    longest(
        *("-", "--high", "30000", "--device-index", "1", "--time-limit", "77", "--any-gpu"),
        *("--keep-output", str(tmp_path / "kept"), "--cache", str(tmp_path / "kernels")),
    )
    assert bench.indices[0] == 1
    assert set(bench.options) == {
        Options(
            device_index=1,
            time_limit_seconds=77,
            any_gpu=True,
            keep_output=tmp_path / "kept",
            cache_folder=tmp_path / "kernels",
        )
    }


def test_it_goes_on_from_its_file_which_is_its_own_meanwhile(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with held(out), pytest.raises(Exception, match="is being written by process"):
        longest("-", "--out", str(out))
    assert bench.asked == []
    longest("-", "--high", "30000", "--out", str(out))
    ran = len(bench.asked)
    longest("-", "--high", "30000", "--out", str(out))
    assert len(bench.asked) == ran > 0


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"job": JOB, "sequence_lengths": [16, 32]}, "sequence_lengths"),
        ({"job": {**JOB, "packing": True}, "sample_lengths": [1024, 1024]}, "sample_lengths"),
    ],
)
def test_a_point_with_lengths_of_its_own_is_refused(bench: Bench, data: Any, key: str) -> None:
    with pytest.raises(PointError) as refused:
        longest("-", data=data)
    assert refused.value.key == key
    assert bench.asked == []


def test_the_file_of_the_point_is_not_written_over(bench: Bench, tmp_path: Path) -> None:
    file = tmp_path / "point.json"
    file.write_text(json.dumps(JOB))
    assert longest(str(file), "--out", str(file)).exit_code == 2
    assert json.loads(file.read_text()) == JOB


class TestTable:
    def test_no_number_is_broken_at_80_columns(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        asked = point(job=replace(point().job, sequence_length=None, max_seq_length=1_048_576))
        large = {"num_hidden_layers": 126, "peak_allocated_bytes": 1234 * 2**30, "peak_reserved_bytes": 1300 * 2**30}
        slow = measured(asked).steps[-1].model_copy(update={"loss": 12.3456, "seconds": 12345.67})
        ok = measured(asked, execution_path="block_compiled", steps=[slow.model_dump()], steps_run=1, **large)
        gone = measured(asked, outcome="host_out_of_memory", peak_allocated_bytes=None)
        show_measurements([ok, gone])
        lines = capfd.readouterr().err.splitlines()
        assert all(len(line) <= 80 for line in lines)
        (row,) = (line for line in lines if "12345.67" in line)
        assert re.findall(r"[\d.,]+", row) == ["1,048,576", "126", "1,234.00", "1,300.00", "12.3456", "12345.67"]
