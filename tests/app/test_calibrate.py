"""``ctxplan calibrate``: from measurements to a calibration that answers, and back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from app.cli import application
from ctxplan.calibration_store import FileStore
from ctxplan.calibrations import shipped
from estimator import parse_job
from estimator.errors import CtxplanError
from probes.measurement import Measurement
from probes.points import parse_points
from tests.app.jobs import FITS
from tests.app.test_cli import run
from tests.probes.documents import committed
from tests.probes.test_drift import scaled

MODEL = "unsloth/Llama-3.1-8B-Instruct-bnb-4bit"
Write = Callable[..., Path]


@pytest.fixture(scope="module")
def some() -> list[Measurement]:
    """A few rows of two families, quickly fitted."""
    eager = [row for row in committed() if row.execution_path == "eager"]
    return [
        next(row for row in eager if name in str(row.job["model"]) and row.sequence_length == length)
        for name, length in (("Llama-3.1-8B", 2048), ("Llama-3.1-8B", 8192), ("Qwen3-8B", 4096), ("Qwen3-8B", 16_384))
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The store of these tests, as the command line finds it."""
    monkeypatch.setenv("CTXPLAN_CALIBRATIONS", str(tmp_path / "store"))
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path / "store"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(rows: list[Measurement], name: str = "rows.jsonl") -> Path:
        file = tmp_path / name
        file.write_text("".join(row.model_dump_json() + "\n" for row in rows))
        return file

    return written


def ctxplan(*arguments: object, code: int = 0) -> Any:
    """Run the command here; its JSON, or None where it printed none."""
    done = CliRunner().invoke(application, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return json.loads(done.stdout) if "--json" in arguments else None


def said(*arguments: object, code: int = 0) -> str:
    """What the command writes for a person."""
    done = CliRunner().invoke(application, [str(argument) for argument in arguments])
    assert done.exit_code == code, done.output
    return done.stderr


class TestFit:
    def test_files_alone_are_fitted_and_kept(self, folder: Path, write: Write, some: list[Measurement]) -> None:
        file = write(some)
        found = ctxplan("calibrate", file, "--json")
        assert found["new"] is True
        assert found["active"] is False
        assert found["measurements"] == {"read": 4, "points": 4}
        assert found["calibration"]["measured"]["eager"]["families"] == ["llama", "qwen3"]
        assert found["before"]["id"] == shipped().id
        assert found["errors"][-1]["points"] == 4
        assert FileStore(folder).get(found["calibration"]["id"]).points == 4
        again = ctxplan("calibrate", "fit", file, "--json")
        assert again["new"] is False
        assert again["calibration"] == found["calibration"]

    def test_a_person_is_told_what_it_is_from_and_how_it_answers(
        self, folder: Path, write: Write, some: list[Measurement]
    ) -> None:
        text = said("calibrate", write(some), "--activate")
        for part in ("From 4 points on H100-80GB", "torch 2.11.0", "eager: llama, qwen3", "in bound", "It is active."):
            assert part in text

    def test_a_family_may_be_left_out(self, folder: Path, write: Write, some: list[Measurement]) -> None:
        found = ctxplan("calibrate", write(some), "--leave-out", "qwen3", "--json")
        assert found["measurements"] == {"read": 4, "points": 2}
        with pytest.raises(CtxplanError, match="llama, qwen3"):
            ctxplan("calibrate", write(some), "--leave-out", "gpt2")

    def test_the_shipped_rows_are_added_where_asked(self, folder: Path, write: Write, some: list[Measurement]) -> None:
        found = ctxplan("calibrate", "--with-shipped", write(some), "--json")
        assert found["measurements"]["read"] == len(committed()) + 4
        assert found["measurements"]["points"] > shipped().points

    @pytest.mark.parametrize(
        ("text", "message"),
        [("", "no measurement"), ("{}\n", "document 1"), ("nonsense\n", "line 1"), (None, "no such file")],
    )
    def test_what_cannot_be_fitted_is_bad_input(
        self, folder: Path, tmp_path: Path, text: str | None, message: str
    ) -> None:
        file = tmp_path / "wrong.jsonl"
        if text is not None:
            file.write_text(text)
        done = run("calibrate", str(file))
        assert done.returncode == 2
        assert message in done.stderr
        assert done.stdout == ""
        assert not folder.exists()

    def test_bytes_that_no_card_has_are_bad_input(self, folder: Path, write: Write, some: list[Measurement]) -> None:
        for changes in ({"peak_allocated_bytes": 0}, {"peak_allocated_bytes": 10**400}):
            file = write([some[0].model_copy(update=changes)])
            with pytest.raises(CtxplanError, match="measurements"):
                ctxplan("calibrate", file)


class TestTheActiveOne:
    def test_every_command_that_plans_answers_with_it_and_names_it(
        self, folder: Path, write: Write, some: list[Measurement], tmp_path: Path
    ) -> None:
        id = ctxplan("calibrate", write(some), "--activate", "--json")["calibration"]["id"]
        job = tmp_path / "job.json"
        job.write_text(json.dumps(FITS))
        assert ctxplan("estimate", job, "--json")["calibration"] == {"id": id, "points": 4}
        assert ctxplan("max-context", job, "--json")["at_safe"]["calibration"]["id"] == id
        assert json.loads(run("estimate", str(job), "--json").stdout)["calibration"]["id"] == id

    def test_rolling_back_answers_with_the_one_before(
        self, folder: Path, write: Write, some: list[Measurement]
    ) -> None:
        first = ctxplan("calibrate", write(some), "--activate", "--json")["calibration"]["id"]
        second = ctxplan("calibrate", write(some[:3]), "--json")["calibration"]["id"]
        activated = ctxplan("calibrate", "activate", second[7:17], "--why", "newer", "--json")
        assert activated["activation"]["why"] == "newer"
        assert [item["id"] for item in ctxplan("calibrate", "list", "--json")["items"] if item["active"]] == [second]
        assert ctxplan("calibrate", "rollback", "--json")["calibration"]["id"] == first
        assert ctxplan("calibrate", "rollback", "--json")["calibration"]["id"] == shipped().id
        with pytest.raises(CtxplanError, match="nothing was active"):
            ctxplan("calibrate", "rollback")

    def test_a_changed_document_never_changes_an_answer(
        self, folder: Path, write: Write, some: list[Measurement], tmp_path: Path
    ) -> None:
        id = ctxplan("calibrate", write(some), "--activate", "--json")["calibration"]["id"]
        file = folder / f"{id}.json"
        file.write_text(file.read_text().replace('"points":4', '"points":5'))
        job = tmp_path / "job.json"
        job.write_text(json.dumps(FITS))
        done = run("estimate", str(job), "--json")
        assert (done.returncode, done.stdout) == (2, "")
        assert str(file) in done.stderr
        assert "the document was changed" in ctxplan("calibrate", "list", "--json")["items"][0]["fault"]
        assert ctxplan("calibrate", "rollback", "--json")["calibration"]["id"] == shipped().id
        assert run("estimate", str(job), "--json").returncode == 0

    def test_where_the_folder_cannot_be_read_the_shipped_one_answers_and_it_is_said_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("CTXPLAN_CALIBRATIONS", str(tmp_path / "file"))
        done = run("estimate", "-", "--json", stdin=json.dumps(FITS).encode())
        assert done.returncode == 0
        assert json.loads(done.stdout)["calibration"]["id"] == shipped().id
        assert done.stderr.count("the shipped calibration is used") == 1


class TestLookingAtThem:
    def test_two_are_compared_on_the_rows_that_are_kept_of_both(
        self, folder: Path, write: Write, some: list[Measurement]
    ) -> None:
        id = ctxplan("calibrate", write(some), "--json")["calibration"]["id"]
        found = ctxplan("calibrate", "compare", "shipped", id, "--json")
        assert found["before"]["id"] == shipped().id
        assert found["after"]["id"] == id
        assert found["differences"]["points"] == [shipped().points, 4]
        assert found["errors"][-1]["points"] == 4
        assert "in bound" in said("calibrate", "compare", "shipped", id)

    def test_show_is_of_the_active_one_or_of_the_one_that_is_named(self, folder: Path) -> None:
        assert ctxplan("calibrate", "show", "--json") == ctxplan("calibrate", "show", shipped().id[:20], "--json")
        assert "Tensors alive beyond the structure" in said("calibrate", "show", "shipped")

    @pytest.mark.parametrize("command", ["show", "activate"])
    def test_an_unknown_id_is_bad_usage(self, folder: Path, command: str) -> None:
        done = run("calibrate", command, "0123456789")
        assert done.returncode == 2
        assert "calibrate list" in done.stderr


class TestStatus:
    def test_it_names_the_active_one_and_finds_no_drift_in_the_rows_it_was_fitted_to(
        self, folder: Path, write: Write, some: list[Measurement]
    ) -> None:
        ctxplan("calibrate", write(some), "--activate")
        found = ctxplan("calibrate", "status", "--json")
        assert found["shipped"] is False
        assert 0 <= found["age_seconds"] < 600
        assert found["activation"]["why"] == "fitted on the command line"
        assert found["drift"] == []
        assert "No drift" in said("calibrate", "status")

    def test_of_the_shipped_one_there_is_no_age(self, folder: Path) -> None:
        found = ctxplan("calibrate", "status", "--json")
        assert (found["shipped"], found["age_seconds"], found["activation"]) == (True, None, None)

    def test_drift_ends_with_3_and_is_noted(self, folder: Path, write: Write, some: list[Measurement]) -> None:
        file = write(scaled(some, 1.08, unsloth="2027.2.1"), "new.jsonl")
        found = ctxplan("calibrate", "status", "--measurements", file, "--json", code=3)
        assert found["drift"][0]["changed"] == [{"package": "unsloth", "old": ["2026.10.9"], "new": "2027.2.1"}]
        text = said("calibrate", "status", "--measurements", file, code=3)
        assert "Drift eager/dense" in text
        assert "unsloth 2026.10.9 -> 2027.2.1" in text
        noted = FileStore(folder).drift(shipped().id)
        assert len(noted) == len(found["drift"])
        assert noted[0]["at"]


class TestPlan:
    def test_a_model_gives_the_lines_of_a_sweep_and_a_table(self, folder: Path) -> None:
        done = run("calibrate", "plan", MODEL, "--max-seq-length", "32768", "--batches", "dense")
        assert done.returncode == 0
        points = [point for line in done.stdout.splitlines() for point in parse_points(json.loads(line))]
        assert points
        assert all(point.job.model == MODEL and point.job.padding_free is False for point in points)
        assert "Standard error of the full depth's peak" in done.stderr

    def test_a_job_or_flags_say_the_same(self, folder: Path, tmp_path: Path) -> None:
        job = tmp_path / "job.json"
        job.write_text(json.dumps({"model": MODEL, "max_seq_length": 16_384}))
        asked = ("--max-seq-length", "16384", "--json")
        by_file = ctxplan("calibrate", "plan", job, "--json")
        assert by_file == ctxplan("calibrate", "plan", MODEL, *asked)
        assert by_file == ctxplan("calibrate", "plan", "--model", MODEL, *asked)
        assert by_file["seconds"] == pytest.approx(sum(one["seconds"] for one in by_file["choices"]), abs=1)
        assert parse_job(by_file["points"][0]["job"]).num_hidden_layers == 3

    def test_what_is_not_enough_ends_with_3(self, folder: Path) -> None:
        asked = ("--checkpointing", "unsloth,true", "--batches", "dense,flattened", "--time-limit", "90")
        assert ctxplan("calibrate", "plan", MODEL, *asked, "--json", code=3)["reached"] is False

    @pytest.mark.parametrize(
        "wrong",
        [("--batches", "loose"), ("--checkpointing", ","), ("--model", "other"), ("--gpu", "none"), ("--error", "7")],
    )
    def test_bad_usage_ends_with_2(self, folder: Path, wrong: tuple[str, str]) -> None:
        done = run("calibrate", "plan", MODEL, *wrong)
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr


class TestTheGroup:
    def test_alone_and_with_help_it_names_its_commands(self) -> None:
        for arguments, code in ((["calibrate"], 2), (["calibrate", "--help"], 0)):
            done = CliRunner().invoke(application, arguments)
            assert done.exit_code == code
            for name in ("fit", "list", "show", "compare", "activate", "rollback", "status", "plan"):
                assert f"  {name}" in done.output

    def test_a_slip_in_a_commands_name_is_told_from_a_file(self, folder: Path) -> None:
        done = run("calibrate", "lisst")
        assert done.returncode == 2
        assert "lisst: there is no such file" in done.stderr
