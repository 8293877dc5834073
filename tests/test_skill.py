"""What the skill tells a coding assistant is so: its front matter, commands, exit codes and keys."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import ctxplan
from app.cli import application, output
from tests.app.test_cli import run
from tests.launching import CONFIGS, ROOT
from tests.test_docs import DOCS, command_lines

SKILL = ROOT / "skills" / "ctxplan" / "SKILL.md"
_, FRONT, BODY = SKILL.read_text(encoding="utf-8").split("---\n", 2)


def section(title: str) -> str:
    return BODY.split(f"\n## {title}\n")[1].split("\n## ")[0]


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A preflight of a config that does not fit, as an assistant gets it."""
    file = tmp_path_factory.mktemp("skill") / "train.yaml"
    file.write_text(CONFIGS["does_not_fit"])
    done = run("preflight", str(file), "--gpu", "H100-80GB", "--json")
    assert done.returncode == 1
    return json.loads(done.stdout)


def test_its_front_matter_is_what_assistants_take() -> None:
    """The limits are those of the Agent Skills specification."""
    front = yaml.safe_load(FRONT)
    assert front.keys() <= {"name", "description", "license", "compatibility", "metadata", "allowed-tools"}
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", front["name"])
    assert front["name"] == SKILL.parent.name
    assert len(front["name"]) <= 64
    assert 0 < len(front["description"]) <= 1024
    assert len(front["compatibility"]) <= 500
    assert len(BODY.splitlines()) < 500


def test_its_commands_are_among_those_that_are_held_against_the_program() -> None:
    assert SKILL in DOCS
    shown = [line for line in section("Commands").splitlines() if line.startswith("ctxplan ")]
    assert len(shown) >= 8
    assert "preflight train.yaml --gpu A100-80GB --host-ram 256GiB --json" in set(command_lines())


def test_every_command_that_it_names_is_one() -> None:
    known = typer.main.get_command(application).commands  # type: ignore[attr-defined]
    named = set(re.findall(r"^ctxplan ([a-z-]+)", BODY, re.MULTILINE))
    assert {"preflight", "estimate", "max-context", "plan", "tokens"} <= named
    assert named <= known.keys()
    assert {"preflight", "estimate", "max-context", "plan"} <= set(re.findall(r"`([a-z-]+)`", section("When")))


def test_its_exit_codes_are_those_of_the_program() -> None:
    rows = dict(re.findall(r"^\| (\d) \| (.+?)(?:,|:| \|)", section("Exit codes"), re.MULTILINE))
    assert {int(code) for code in rows} == {
        output.DONE, output.DOES_NOT_FIT, output.BAD_INPUT, output.UNCERTAIN, output.UNREACHABLE,
    }  # fmt: skip
    assert rows[str(output.EXIT_CODES["fits"])] == "it fits"
    assert rows[str(output.EXIT_CODES["does_not_fit"])] == "it does not fit"
    assert rows[str(output.EXIT_CODES["uncertain"])] == "uncertain"


def test_every_key_of_a_preflight_that_it_explains_is_in_one(answer: Any) -> None:
    keys = [
        re.findall(r"`(\w+)`", cell) for cell in re.findall(r"^\| (`.+?) \|", section("Read a preflight"), re.MULTILINE)
    ]
    explained = {key for cell in keys for key in cell}
    assert {"verdict", "suggestions", "findings", "unsure_because"} <= explained
    assert explained <= answer.keys()


def test_what_it_says_of_parts_of_the_answer_is_there(answer: Any) -> None:
    assert answer["needed_bytes"].keys() == {"expected", "upper"}
    assert answer["max_seq_length"].keys() == {"safe", "expected"}
    assert {"rule", "level", "message", "line"} <= answer["findings"][0].keys()
    assert {"changes", "price", "code", "job"} <= answer["suggestions"][0].keys()
    assert len(answer["suggestions"]) <= 3
    assert {"evidence", "peak_device_bytes", "terms"} <= answer["estimate"].keys()
    phases = section("Read a preflight").split("at its largest: ")[1].split(" |")[0]
    told = {phase.replace(" ", "_") for phase in phases.split(", ")}
    assert {phase["phase"] for phase in answer["phases"]} | {"evaluation"} == told


def test_the_job_of_an_answer_is_a_job(answer: Any) -> None:
    asked = ctxplan.estimate(answer["asked"] | {"gpu": "H100-80GB"})
    again, changed = ctxplan.estimate(answer["job"]), ctxplan.estimate(answer["suggestions"][0]["job"])
    assert (asked.verdict, again.verdict, changed.verdict) == ("does_not_fit", "does_not_fit", "fits")


def test_several_configs_answer_as_it_says(tmp_path: Path) -> None:
    for verdict in ("fits", "unreadable"):
        (tmp_path / f"{verdict}.yaml").write_text(CONFIGS[verdict])
    done = run("preflight", str(tmp_path / "fits.yaml"), str(tmp_path / "unreadable.yaml"), "--json")
    answer = json.loads(done.stdout)
    assert answer.keys() == {"verdict", "exit_code", "items"}
    assert "error" in answer["items"][1]


def test_a_plan_ends_with_0_where_a_change_makes_the_job_fit() -> None:
    done = run("plan", "--model", "Qwen/Qwen3-8B", "--gpu", "T4-16GB", "--max-seq-length", "65536", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 0
    assert (answer["verdict"], answer["best_verdict"]) == ("does_not_fit", "fits")
