"""``ctxplan probe``: exit codes, and what goes where. The measured process is one of ours (`children`)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from app.cli.probe import need_the_probe
from probes.files import read_documents
from probes.lock import held
from tests.probes.children import WELL, child
from tests.probes.common import JOB

ROOT = Path(__file__).resolve().parents[2]

RUN = """
import sys
from functools import partial
import probes.supervise
command = tuple(sys.argv.pop(1).split("\\0"))
probes.supervise.Options = partial(probes.supervise.Options, child=command)
from app.cli import main
main()
"""
"""The command line with another process to measure; nothing else of it is changed."""


class Command:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, body: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = "\0".join(child(self.folder, body)).replace("\0", "\\0")
        script = RUN.replace('"\\0"', 'r"\\0"')
        done = subprocess.run(
            [sys.executable, "-c", script, command, "probe", *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "CUDA_VISIBLE_DEVICES": ""},
            timeout=60,
        )
        assert "Traceback" not in done.stderr or "last output" in done.stderr
        assert "internal error" not in done.stderr
        return done

    def file(self, *lines: Any) -> str:
        path = self.folder / "point.json"
        path.write_text("\n".join(json.dumps(line) for line in lines))
        return str(path)


@pytest.fixture
def command(tmp_path: Path) -> Command:
    return Command(tmp_path)


class TestAnswer:
    def test_json_alone_goes_to_standard_output(self, command: Command) -> None:
        done = command(WELL, command.file(JOB), "--json")
        assert json.loads(done.stdout)["outcome"] == "ok"
        assert "point 1 of 1, 64 tokens: load" in done.stderr
        assert done.returncode == 0

    def test_without_a_gpu_it_says_once_what_that_means(self, command: Command) -> None:
        done = command(WELL, command.file({"job": JOB, "sequence_lengths": [16, 32]}), "--json")
        assert done.stderr.count("no GPU here: path cpu, GPU fields are null") == 1

    def test_without_json_a_person_reads_standard_error(self, command: Command) -> None:
        done = command(WELL, "-", stdin=json.dumps(JOB))
        assert done.stdout == ""
        assert "2.5000" in done.stderr
        assert "cpu" in done.stderr
        assert done.returncode == 0

    def test_several_points_are_items(self, command: Command) -> None:
        done = command(WELL, command.file({"job": JOB, "sequence_lengths": [32, 16]}), "--json")
        assert [item["sequence_length"] for item in json.loads(done.stdout)["items"]] == [16, 32]

    def test_flags_win_over_the_file(self, command: Command) -> None:
        done = command(WELL, command.file({"job": JOB, "steps": 9}), "--json", "--steps", "4", "--trainer", "loop")
        answer = json.loads(done.stdout)
        assert (answer["steps_asked"], answer["trainer"]) == (4, "loop")

    @pytest.mark.parametrize(
        ("body", "code"),
        [
            (WELL, 0),
            ('failed("out_of_memory")', 1),
            ('failed("host_out_of_memory")', 1),
            ('failed("not_supported")', 70),
            ("os.abort()", 70),
            ("hang()", 70),
            ('failed("unavailable")', 2),
        ],
    )
    def test_the_exit_code_says_how_it_ended(self, command: Command, body: str, code: int) -> None:
        done = command(body, command.file(JOB), "--json", "--time-limit", "1")
        assert done.returncode == code
        assert bool(done.stdout) == (code != 2)

    def test_the_worst_of_several_points_counts(self, command: Command) -> None:
        point = command.file({"job": JOB, "sequence_lengths": [16, 32]})
        assert command('measured(0)\nfailed("out_of_memory", 1)', point).returncode == 1
        assert command('failed("out_of_memory")\nprogress(1)\nos.abort()', point).returncode == 70

    def test_output_is_kept_and_measurements_are_added_to_a_file(self, command: Command, tmp_path: Path) -> None:
        arguments = (command.file(JOB), "--out", str(tmp_path / "out.jsonl"), "--keep-output", str(tmp_path / "kept"))
        for _ in range(2):
            assert command("print('spoken')\n" + WELL, *arguments).returncode == 0
        assert len(read_documents(tmp_path / "out.jsonl")) == 2
        assert [file.read_text() for file in (tmp_path / "kept").iterdir()] == ["spoken\n"]


class TestSweep:
    def test_finished_points_are_not_run_again(self, command: Command, tmp_path: Path) -> None:
        out = str(tmp_path / "out.jsonl")
        lines = ({**JOB, "r": 8}, {"job": JOB, "sequence_lengths": [16, 32]})
        done = command(WELL, command.file(*lines), "--sweep", "--out", out, "--json")
        assert len(json.loads(done.stdout)["items"]) == 3
        again = command(WELL, command.file(*lines), "--sweep", "--out", out, "--json")
        assert json.loads(again.stdout) == {"items": []}
        assert again.returncode == 0
        assert len(read_documents(Path(out))) == 3

    def test_the_exit_code_counts_the_points_that_were_finished_before(self, command: Command, tmp_path: Path) -> None:
        arguments = (command.file({**JOB, "r": 8}, JOB), "--sweep", "--out", str(tmp_path / "out.jsonl"))
        assert command('failed("out_of_memory")', *arguments).returncode == 1
        again = command("os.abort()", *arguments)
        assert "every point is finished" in again.stderr
        assert again.returncode == 1

    def test_the_file_of_the_points_is_not_written_over(self, command: Command, tmp_path: Path) -> None:
        points = command.file(JOB)
        (tmp_path / "link").symlink_to(points)
        for out in (points, str(tmp_path / "link")):
            done = command(WELL, points, "--sweep", "--out", out)
            assert "is the file of the points" in done.stderr
            assert done.returncode == 2
        assert json.loads(Path(points).read_text()) == JOB

    def test_a_second_sweep_into_the_file_is_told_who_writes_it(self, command: Command, tmp_path: Path) -> None:
        out = tmp_path / "out.jsonl"
        with held(out):
            done = command("os.abort()", command.file(JOB), "--sweep", "--out", str(out))
        assert f"is being written by process {os.getpid()} on" in done.stderr
        assert done.returncode == 2

    def test_what_was_measured_is_printed_although_something_went_wrong_later(
        self, command: Command, tmp_path: Path
    ) -> None:
        """The second process finds that the machine lacks something."""
        body = """
        if request["points"][0]["job"]["r"] == 8:
            measured()
        else:
            failed("unavailable", message="the disk is full")
        """
        arguments = (command.file({**JOB, "r": 8}, JOB), "--sweep", "--out", str(tmp_path / "out.jsonl"), "--json")
        done = command(body, *arguments)
        assert [item["outcome"] for item in json.loads(done.stdout)["items"]] == ["ok"]
        assert "error: the disk is full" in done.stderr
        assert done.returncode == 2

    def test_a_bad_line_is_named_before_anything_runs(self, command: Command, tmp_path: Path) -> None:
        out = tmp_path / "out.jsonl"
        done = command(WELL, command.file(JOB, {**JOB, "ranks": 3}), "--sweep", "--out", str(out))
        assert "line 2: ranks: unknown key" in done.stderr
        assert done.returncode == 2
        assert not out.exists()

    def test_it_needs_a_file_to_go_on_from(self, command: Command) -> None:
        done = command(WELL, command.file(JOB), "--sweep")
        assert "--out" in done.stderr
        assert done.returncode == 2


class TestRefused:
    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["/nowhere/point.json"], "cannot be read"),
            (["-"], "is empty"),
            (["-", "--trainer", "grpo"], "grpo"),
            (["-", "--steps", "1"], "steps"),
            (["-", "--time-limit", "0"], "time-limit"),
            (["-", "--cap-gib", "24", "--cap-bytes", "30000000000"], "one of them"),
        ],
    )
    def test_bad_usage_ends_with_2_and_a_line(self, command: Command, arguments: list[str], said: str) -> None:
        done = command(WELL, *arguments)
        assert said in done.stderr
        assert (done.stdout, done.returncode) == ("", 2)

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("{", "line 1"),
            (json.dumps({**JOB, "max_seq_lenght": 1}), "max_seq_lenght: unknown key"),
            (json.dumps({"job": JOB, "steps": 1}), "steps: 1 is not accepted"),
            ("[]", "must be a JSON object"),
        ],
    )
    def test_what_is_no_point_ends_with_2_and_a_line(self, command: Command, text: str, said: str) -> None:
        done = command(WELL, "-", stdin=text)
        assert said in done.stderr
        assert (done.stdout, done.returncode) == ("", 2)

    def test_a_cap_without_a_gpu_ends_with_2(self, command: Command) -> None:
        done = command(WELL, command.file(JOB), "--cap-gib", "24")
        assert "has none" in done.stderr
        assert done.returncode == 2

    def test_a_file_that_cannot_be_written_is_found_before_the_run(self, command: Command) -> None:
        done = command("os.abort()", command.file(JOB), "--out", "/nowhere/out.jsonl")
        assert "/nowhere" in done.stderr
        assert done.returncode == 2

    @pytest.mark.parametrize("out", ["/proc/out.jsonl", "/tmp"])
    def test_so_is_a_place_that_takes_no_file(self, command: Command, out: str) -> None:
        done = command("os.abort()", command.file(JOB), "--out", out)
        assert f"{out}: cannot be written" in done.stderr
        assert "crashed" not in done.stderr
        assert done.returncode == 2

    def test_a_file_that_takes_nothing_in_the_end_costs_no_measurement(self, command: Command) -> None:
        done = command(WELL, command.file(JOB), "--out", "/dev/full", "--json")
        assert json.loads(done.stdout)["outcome"] == "ok"
        assert "/dev/full: cannot be written: no space left on the device" in done.stderr
        assert done.returncode == 2

    def test_a_point_that_is_given_to_estimate_is_told_where_it_belongs(self, command: Command) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "app", "estimate", command.file({"job": JOB, "steps": 3})],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert "this is a point, which ctxplan probe measures (allowed: the value of job alone)" in done.stderr
        assert (done.stdout, done.returncode) == ("", 2)

    def test_a_card_that_is_not_there_ends_with_2(self, command: Command) -> None:
        done = command("os.abort()", command.file(JOB), "--device-index", "0")
        assert "there is no GPU 0" in done.stderr
        assert done.returncode == 2

    def test_a_missing_unsloth_says_what_to_install(self, command: Command) -> None:
        hidden = "import sys; sys.modules['unsloth'] = None; from app.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", hidden, "probe", command.file(JOB)],
            capture_output=True,
            text=True,
            check=False,
            cwd=ROOT,
        )
        assert "not installed: unsloth; pip install 'ctxplan[probe]'" in done.stderr
        assert done.returncode == 2

    def test_an_install_without_the_probe_says_what_to_install(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.delitem(sys.modules, "probes.measurement", raising=False)
        monkeypatch.setitem(sys.modules, "pydantic", None)
        with pytest.raises(SystemExit, match="2"):
            need_the_probe()
        assert "(pydantic is missing): pip install 'ctxplan[probe]'" in capsys.readouterr().err
