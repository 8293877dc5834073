"""The command line: exit codes, where text goes, and the same numbers as over HTTP."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import ctxplan
from estimator.job import RULES
from tests.app.jobs import CONFIG, DOES_NOT_FIT, FITS, MODEL, WRONG_JOBS, WRONG_JSON

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, without the Hub."""
    done = subprocess.run(
        [sys.executable, "-m", "app", *arguments],
        input=stdin,
        capture_output=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "80", **environment},
        timeout=60,
    )
    out, err = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in err
    assert "internal error" not in err
    return subprocess.CompletedProcess(done.args, done.returncode, out, err)


@pytest.fixture
def job_file(tmp_path: Path) -> Path:
    file = tmp_path / "job.json"
    file.write_text(json.dumps(FITS))
    return file


class TestEstimate:
    def test_json_alone_goes_to_standard_output(self, job_file: Path) -> None:
        done = run("estimate", str(job_file), "--json")
        assert json.loads(done.stdout) == ctxplan.estimate(FITS).to_json()
        assert done.stderr == ""
        assert done.returncode == 0

    def test_text_for_a_person_goes_to_standard_error_with_the_verdict_first(self, job_file: Path) -> None:
        done = run("estimate", str(job_file))
        assert done.stdout == ""
        assert done.stderr.startswith("Fits: ")
        assert "█" in done.stderr
        assert done.returncode == 0

    @pytest.mark.parametrize("columns", [20, 40, 80, 200])
    def test_text_for_a_person_keeps_to_the_terminal(self, job_file: Path, columns: int) -> None:
        done = run("estimate", str(job_file), COLUMNS=str(columns))
        assert max(len(line) for line in done.stderr.splitlines()) <= columns

    def test_a_job_that_does_not_fit_ends_with_1(self) -> None:
        done = run("estimate", "-", "--json", stdin=json.dumps(DOES_NOT_FIT).encode())
        assert json.loads(done.stdout)["verdict"] == "does_not_fit"
        assert done.returncode == 1

    def test_the_command_line_and_the_service_give_the_same_numbers(self, client: TestClient, job_file: Path) -> None:
        for command, path in (("estimate", "/v1/estimates"), ("max-context", "/v1/max-context")):
            done = run(command, str(job_file), "--json")
            assert json.loads(done.stdout) == client.post(path, json=FITS).json()

    def test_flags_win_over_the_file(self, job_file: Path) -> None:
        flags = [
            "--r",
            "64",
            "--use-gradient-checkpointing",
            "true",
            "--no-load-in-4bit",
            "--target-modules",
            "q_proj, v_proj",
        ]
        done = run("estimate", str(job_file), "--json", *flags)
        job = json.loads(done.stdout)["job"]
        assert (job["r"], job["use_gradient_checkpointing"], job["load_in_16bit"]) == (64, True, True)
        assert job["target_modules"] == ["q_proj", "v_proj"]
        assert job["max_seq_length"] == FITS["max_seq_length"]

    def test_flags_alone_are_a_job(self) -> None:
        gpu = '{"name": "mine", "total_bytes": 25769803776}'
        done = run("estimate", "--model", MODEL, "--gpu", gpu, "--versions", "torch=2.11.0,flash_attn=null", "--json")
        job = json.loads(done.stdout)["job"]
        assert job["gpu"] == {"name": "mine", "total_bytes": 25769803776}
        assert job["versions"]["flash_attn"] is None

    def test_every_key_of_a_job_has_a_flag(self) -> None:
        text = run("estimate", "--help", COLUMNS="200").stdout
        for key in RULES:
            assert f"--{key.replace('_', '-')} " in text

    def test_a_directory_of_this_machine_is_a_model(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps(CONFIG))
        assert run("estimate", "--model", str(tmp_path), "--json").returncode == 0

    def test_a_directory_without_a_config_is_refused(self, tmp_path: Path) -> None:
        done = run("estimate", "--model", str(tmp_path), "--json")
        assert done.returncode == 2
        assert "model: " in done.stderr
        assert "config.json" in done.stderr


class TestWrongInput:
    @pytest.mark.parametrize("name", [name for name in WRONG_JOBS if name != "a directory of the server"])
    def test_a_wrong_job_ends_with_2_and_names_its_key(self, name: str) -> None:
        job, _, key = WRONG_JOBS[name]
        done = run("estimate", "-", "--json", "--offline", stdin=json.dumps(job).encode())
        assert done.returncode == 2
        assert done.stdout == ""
        assert done.stderr.startswith("ctxplan: error: ")
        assert any(part in done.stderr for part in key.split("|"))

    @pytest.mark.parametrize("name", WRONG_JSON)
    def test_input_that_is_not_strict_json_ends_with_2(self, name: str) -> None:
        done = run("estimate", "-", stdin=WRONG_JSON[name])
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1

    def test_a_file_that_cannot_be_read_ends_with_2(self, tmp_path: Path) -> None:
        for file in (tmp_path, tmp_path / "absent.json", tmp_path / ("x" * 300)):
            done = run("estimate", str(file))
            assert done.returncode == 2
            assert "cannot be read" in done.stderr

    def test_a_file_larger_than_a_job_ends_with_2(self, tmp_path: Path) -> None:
        file = tmp_path / "large.json"
        file.write_bytes(b" " * 10_000_000)
        done = run("estimate", str(file))
        assert done.returncode == 2
        assert "larger than a job can be" in done.stderr

    @pytest.mark.parametrize(
        ("flags", "key"),
        [
            (["--r", "many"], "r"),
            (["--r", "-1"], "r"),
            (["--confidence", "nan"], "confidence"),
            (["--versions", "torch"], "versions"),
            (["--gpu", "{"], "gpu"),
            (["--gpu", "H1000"], "gpu"),
            (["--optim", "adam"], "optim"),
            (["--load-in-4bit", "--full-finetuning"], "full_finetuning"),
        ],
    )
    def test_a_wrong_flag_ends_with_2_and_names_its_key(self, flags: list[str], key: str) -> None:
        done = run("estimate", "--model", MODEL, *flags)
        assert done.returncode == 2
        assert key in done.stderr

    @pytest.mark.parametrize(
        "arguments",
        [["nothing"], ["estimate", "--nothing"], ["estimate", "a", "b"], ["serve", "--port", "x"]],
    )
    def test_bad_usage_ends_with_2(self, arguments: list[str]) -> None:
        assert run(*arguments).returncode == 2

    def test_a_missing_job_names_the_model(self) -> None:
        done = run("estimate")
        assert done.returncode == 2
        assert "model" in done.stderr


class TestOtherCommands:
    def test_max_context_says_the_length_first(self, job_file: Path) -> None:
        done = run("max-context", str(job_file))
        safe = ctxplan.max_context(FITS).safe
        assert f"{safe:,} tokens" in done.stderr.splitlines()[0]
        assert done.returncode == 0

    def test_script_prints_a_program_alone(self, job_file: Path) -> None:
        done = run("script", str(job_file))
        compile(done.stdout, "script", "exec")
        assert done.stderr == ""

    @pytest.mark.parametrize("command", ["models", "gpus"])
    def test_what_is_known_is_the_same_as_over_http(self, client: TestClient, command: str) -> None:
        assert json.loads(run(command, "--json").stdout) == client.get(f"/v1/{command}").json()
        assert run(command).stdout == ""

    def test_a_table_that_is_piped_has_its_rows_whole(self, client: TestClient) -> None:
        """What the terminal's width would fold in the middle of a name could not be searched for."""
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        done = subprocess.run(
            [sys.executable, "-m", "app", "models"], capture_output=True, text=True, cwd=ROOT, env=environment
        )
        listed = [line.split()[0] for line in done.stderr.splitlines()[2:]]
        assert listed == [one["id"] for one in client.get("/v1/models").json()["items"]]
        assert max(len(line) for line in done.stderr.splitlines()) > 80

    def test_version_is_the_packages(self) -> None:
        assert run("--version").stdout == f"ctxplan {ctxplan.__version__}\n"

    def test_help_names_every_command(self) -> None:
        text = run("--help").stdout
        for command in ("estimate", "max-context", "script", "models", "gpus", "tokens", "serve"):
            assert command in text

    def test_a_port_in_use_ends_with_2(self, server_address: tuple[str, int]) -> None:
        done = run("serve", "--port", str(server_address[1]))
        assert done.returncode == 2
        assert "cannot listen" in done.stderr

    def test_a_wrong_setting_ends_with_2_and_names_its_variable(self) -> None:
        done = run("serve", CTXPLAN_MAX_BODY_BYTES="-1")
        assert done.returncode == 2
        assert "CTXPLAN_MAX_BODY_BYTES" in done.stderr

    def test_serve_says_nothing_of_serving_where_it_cannot_be_built(self) -> None:
        without = "import sys; sys.modules['opentelemetry.instrumentation.fastapi'] = None"
        done = subprocess.run(
            [sys.executable, "-c", f"{without}; from app.cli import main; main()", "serve", "--port", "0"],
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
            timeout=60,
        )
        assert done.returncode == 2
        assert "ctxplan[otel]" in done.stderr
        assert "serving" not in done.stderr

    def test_serve_without_the_server_extra_says_what_to_install(self, tmp_path: Path) -> None:
        (tmp_path / "uvicorn.py").write_text("raise ModuleNotFoundError('absent', name='uvicorn')")
        path = os.pathsep.join((str(tmp_path), os.environ.get("PYTHONPATH", "")))
        done = run("serve", PYTHONPATH=path)
        assert done.returncode == 2
        assert "ctxplan[server]" in done.stderr


def test_a_reader_that_goes_away_changes_nothing(job_file: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done: Any = subprocess.run(
        [sys.executable, "-m", "app", "estimate", str(job_file), "--json"],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
        cwd=ROOT,
    )
    os.close(writer)
    assert done.returncode == 0
    assert done.stderr == b""


def test_a_full_disk_is_said_in_one_line(job_file: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("there is no /dev/full here")
    with full.open("wb") as out:
        command = [sys.executable, "-m", "app", "estimate", str(job_file), "--json"]
        done = subprocess.run(command, stdout=out, stderr=subprocess.PIPE, check=False, cwd=ROOT)
    assert done.stderr.startswith(b"ctxplan: error: standard output cannot be written")
    assert done.returncode == 70


def test_bars_are_plain_where_the_terminal_knows_no_blocks(job_file: Path) -> None:
    done = run("estimate", str(job_file), PYTHONIOENCODING="ascii")
    assert "####" in done.stderr
    assert "\\u" not in done.stderr


def test_colour_is_only_for_a_terminal_that_wants_it(job_file: Path) -> None:
    assert "\x1b" not in run("estimate", str(job_file)).stderr
    assert "\x1b" not in run("estimate", str(job_file), NO_COLOR="1", FORCE_COLOR="").stderr


def test_the_command_line_imports_no_server(job_file: Path) -> None:
    code = (
        "import sys; sys.argv = ['ctxplan', 'estimate', sys.argv[1], '--json']; import app.cli\n"
        "try: app.cli.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'fastapi', 'uvicorn', 'httpx', 'huggingface_hub', 'rich.table', 'numpy', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(job_file)], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stderr.strip() == "[]"
