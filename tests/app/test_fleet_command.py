"""``ctxplan fleet``: what it prints, what it starts, and how it says that it cannot; and its page of the manual."""

from __future__ import annotations

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from app.cli import application
from app.cli.output import BAD_INPUT, DONE, UNREACHABLE, run
from probes.fleet.order import GRACE_SECONDS, LEAVE_SECONDS, MOST_WORKERS

SERVER = ("--server", "https://ctxplan.example.org")
TEXT = (Path(__file__).resolve().parents[2] / "docs" / "fleets.md").read_text()
KINDS = ("slurm", "kubernetes", "ray")


class Answer:
    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code, self.stdout, self.stderr = code, stdout, stderr


def fleet(capfd: pytest.CaptureFixture[str], *arguments: str) -> Answer:
    """The command as `app.cli.main` runs it: errors become one line and an exit code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["ctxplan", "fleet", *arguments])
        with pytest.raises(SystemExit) as left:
            run(application)
    out, err = capfd.readouterr()
    return Answer(int(left.value.code or 0), out, err)


def tool(folder: Path, name: str, body: str) -> None:
    file = folder / name
    file.write_text(f"#!{sys.executable}\nimport os, sys\n{body}\n")
    file.chmod(0o755)


@pytest.fixture
def only_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH, and a key in the environment."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CTXPLAN_API_KEY", "ctxp_the_key_of_who_submits")
    return tmp_path


def test_the_script_is_alone_on_standard_output(capfd: pytest.CaptureFixture[str], only_here: Path) -> None:
    answer = fleet(capfd, "slurm", *SERVER, "--workers", "4", "--gpu", "h100", "--time", "04:00:00")
    assert (answer.code, answer.stderr) == (DONE, "")
    assert answer.stdout.startswith("#!/bin/bash\n#SBATCH --job-name=ctxplan-worker\n#SBATCH --array=0-3\n")
    assert "ctxp_" not in answer.stdout


def test_the_manifest_is_alone_on_standard_output(capfd: pytest.CaptureFixture[str], only_here: Path) -> None:
    answer = fleet(capfd, "kubernetes", *SERVER, "--workers", "4", "--constraint", "pool=a", "--time", "60", "--no-key")
    assert (answer.code, answer.stderr) == (DONE, "")
    manifest = yaml.safe_load(answer.stdout)
    assert (manifest["kind"], manifest["spec"]["completions"]) == ("Job", 4)
    assert manifest["spec"]["template"]["spec"]["nodeSelector"] == {"pool": "a"}
    assert "ctxp_" not in answer.stdout


def test_a_submitted_script_goes_to_sbatch_with_the_key_unless_it_is_in_a_file(
    capfd: pytest.CaptureFixture[str], only_here: Path
) -> None:
    took = f'open({str(only_here / "took")!r}, "w").write(os.environ.get("CTXPLAN_API_KEY", "none") + sys.stdin.read())'
    tool(only_here, "sbatch", f"assert sys.argv[1:] == ['--parsable']\n{took}\nprint(77)")
    answer = fleet(capfd, "slurm", *SERVER, "--submit", "--json")
    found = json.loads(answer.stdout)
    assert (answer.code, found["submitted"], found["answer"]) == (DONE, True, "77")
    assert (only_here / "took").read_text() == "ctxp_the_key_of_who_submits" + found["script"]
    answer = fleet(capfd, "slurm", *SERVER, "--submit", "--key-file", "~/work.key")
    assert (answer.code, answer.stdout) == (DONE, "")
    assert "sbatch answers: 77" in answer.stderr
    text = (only_here / "took").read_text()
    assert text.startswith("none#!/bin/bash")
    assert f"< {Path('~/work.key').expanduser()} " in text


def test_a_submitted_manifest_goes_to_kubectl_without_the_key(
    capfd: pytest.CaptureFixture[str], only_here: Path
) -> None:
    body = "assert sys.argv[1:] == ['apply', '--filename', '-'] and 'CTXPLAN_API_KEY' not in os.environ"
    tool(
        only_here,
        "kubectl",
        f"{body}\nassert 'kind: Job' in sys.stdin.read()\nprint('job.batch/ctxplan-worker created')",
    )
    answer = fleet(capfd, "kubernetes", *SERVER, "--submit")
    assert (answer.code, answer.stdout) == (DONE, "")
    assert "created" in answer.stderr


def test_a_tool_that_is_missing_or_refuses_is_one_line_and_exit_code_2(
    capfd: pytest.CaptureFixture[str], only_here: Path
) -> None:
    answer = fleet(capfd, "slurm", *SERVER, "--submit")
    assert (answer.code, answer.stdout) == (BAD_INPUT, "")
    assert "sbatch is not installed here" in answer.stderr
    tool(only_here, "kubectl", "sys.exit('the namespace is not there')")
    answer = fleet(capfd, "kubernetes", *SERVER, "--submit")
    assert (answer.code, answer.stdout) == (BAD_INPUT, "")
    assert "kubectl ended with exit code 1: the namespace is not there" in answer.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("slurm", "--server", "https://user:word@host"), "server: has more than an address"),
        (("slurm", "--server", "nowhere"), "is no address of a service"),
        (("slurm", *SERVER, "--workers", "0"), "workers: 0 is not accepted"),
        (("slurm", *SERVER, "--partition", "a b"), "partition: 'a b' is not accepted"),
        (("kubernetes", "--server", "http://127.0.0.1:8000"), "server: means the pod itself"),
        (("kubernetes", *SERVER, "--constraint", "pool"), "LABEL=VALUE"),
        (("ray", *SERVER, "--address", "nowhere"), "address: is no address of a cluster"),
        (("ray", *SERVER, "--address", "ray://host:10001"), "address: is no address of a cluster"),
        (("ray", *SERVER, "--gpu", "no name"), "gpu: 'no name' is not accepted"),
        (("ray", *SERVER, "--cpu", "--gpu", "H100"), "give one of them"),
    ],
)
def test_what_cannot_be_is_refused_by_name(
    capfd: pytest.CaptureFixture[str], arguments: tuple[str, ...], said: str
) -> None:
    answer = fleet(capfd, *arguments)
    assert (answer.code, answer.stdout) == (BAD_INPUT, "")
    assert said in answer.stderr
    assert "word" not in answer.stderr


def test_a_cluster_that_is_not_there_is_said_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray")
    answer = fleet(capfd, "ray", *SERVER, "--address", "127.0.0.1:1")
    assert (answer.code, answer.stdout) == (UNREACHABLE, "")
    assert "no Ray cluster at 127.0.0.1:1" in answer.stderr


def test_a_service_on_loopback_is_pointed_at(capfd: pytest.CaptureFixture[str]) -> None:
    answer = fleet(capfd, "slurm", "--server", "http://127.0.0.1:8000")
    assert answer.code == DONE
    assert "is, on each node, that node itself" in answer.stderr


def options(kind: str) -> dict[str, Any]:
    command = typer.main.get_command(application).commands["fleet"].commands[kind]  # type: ignore[attr-defined]
    return {name: one for one in command.params if not one.hidden for name in one.opts if name != "--help"}


@pytest.mark.parametrize("kind", KINDS)
def test_the_manual_has_every_option_of_the_command_and_no_other(kind: str) -> None:
    shared = TEXT.partition("## Options of all three")[2].partition("\n## ")[0]
    part = TEXT.partition(f"## {kind.capitalize()}\n")[2].partition("\n## ")[0]
    assert part
    assert shared
    of_all = set(re.findall(r"^\| `(--[a-z-]+)", shared, re.MULTILINE))
    listed = set(re.findall(r"^\| `(--[a-z-]+)", part, re.MULTILINE))
    assert not of_all & listed
    assert of_all | listed == set(options(kind))


def test_the_manual_has_every_exit_code_and_the_times() -> None:
    assert {int(code) for code in re.findall(r"^\| (\d) \|", TEXT, re.MULTILINE)} == {DONE, BAD_INPUT, UNREACHABLE}
    assert f"{GRACE_SECONDS} seconds" in TEXT
    assert f"{LEAVE_SECONDS} seconds before" in TEXT
    assert f"at most {MOST_WORKERS:,}" in TEXT


def test_the_manuals_commands_are_ones_that_are_taken(capfd: pytest.CaptureFixture[str]) -> None:
    commands = re.findall(
        r"^ctxplan (fleet (?:slurm|kubernetes) .*(?:\\\n.*)*)", TEXT.replace(" \\\n", " "), re.MULTILINE
    )
    assert len(commands) >= 2
    for command in commands:
        words = [word for word in shlex.split(command)[1:] if word != "--submit"]
        assert fleet(capfd, *words).code == DONE, command


def test_help_says_what_each_is() -> None:
    said = CliRunner().invoke(application, ["fleet", "--help"]).stdout
    assert all(kind in said for kind in KINDS)
