"""What the manual says is so: the evidence table is current, and every command, key and exit code in it exists."""

from __future__ import annotations

import dataclasses
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

import ctxplan
from app.cli import application
from probes.measurement import Measurement
from probes.points import Point, parse_point

ROOT = Path(__file__).resolve().parents[1]
DOCS = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "skills" / "ctxplan" / "SKILL.md"]
PROBING = (ROOT / "docs" / "probing.md").read_text(encoding="utf-8")
TIER = {
    "model": "unsloth/Llama-3.3-70B-Instruct-bnb-4bit",
    "gpu": "H100-80GB",
    "max_seq_length": 89_389,
    "r": 32,
}


def command_lines() -> Iterator[str]:
    """Every ctxplan command in the manual: lines of a code block, and what stands between backquotes."""
    for file in DOCS:
        text = file.read_text(encoding="utf-8").replace("\\\n", " ")
        for block in re.findall(r"```\w*\n(.*?)```", text, re.DOTALL):
            for line in block.splitlines():
                found = re.match(r"(?:srun |\S+=\S+ )*(?:python3? -m app|ctxplan) (.*)", line.strip())
                if found:
                    yield shlex.join(shlex.split(found[1].partition(">")[0], comments=True))
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        yield from re.findall(r"`ctxplan ([^`]+)`", prose)


@pytest.mark.parametrize("line", sorted(set(command_lines())))
def test_every_command_line_of_the_manual_is_one_that_the_program_takes(line: str) -> None:
    words = shlex.split(line)
    command: Any = typer.main.get_command(application)
    context = command.make_context("ctxplan", [], resilient_parsing=True)
    while hasattr(command, "commands"):
        name, command, words = command.resolve_command(context, words)
        context = command.make_context(name, [], parent=context, resilient_parsing=True)
    _, left, _ = command.make_parser(context).parse_args(words)
    assert left == []


def test_the_manual_has_commands() -> None:
    assert "probe POINT.json --json" in "\n".join(command_lines())
    assert "probe --sweep POINTS.jsonl --out FILE.jsonl" in "\n".join(command_lines())


def test_every_option_that_the_manual_names_is_one_of_the_probe() -> None:
    command: Any = typer.main.get_command(application)
    taken = {name for parameter in command.commands["probe"].params for name in parameter.opts}
    prose = re.sub(r"```.*?```", "", PROBING.split("## What the numbers are")[0], flags=re.DOTALL)
    named = re.findall(r"`(--[\w-]+)`", prose)
    assert named
    assert set(named) <= taken


def test_every_key_of_a_point_is_explained() -> None:
    explained = re.findall(r"^\| `(\w+)` \|", PROBING.split("## A point")[1].split("##")[0], re.MULTILINE)
    assert sorted(explained) == sorted([*(field.name for field in dataclasses.fields(Point)), "sequence_lengths"])


def test_the_point_that_is_shown_is_one() -> None:
    shown = re.search(r"```json\n(.*?)```", PROBING, re.DOTALL)
    assert shown
    assert parse_point(json.loads(shown[1])).job.max_seq_length == 32_768


def test_every_exit_code_of_a_probe_is_named() -> None:
    assert re.findall(r"^\| (\d+) \|", PROBING, re.MULTILINE) == ["0", "1", "2", "70"]


def test_every_number_that_is_explained_is_in_a_measurement() -> None:
    table = PROBING.split("## What the numbers are")[1].split("##")[0]
    cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.MULTILINE)
    assert cells
    for name in re.findall(r"`(\w+)`", " ".join(cells)):
        assert name in Measurement.model_fields


@pytest.mark.parametrize(("pinned", "told"), [(None, "takes 164 GiB with pinned"), (False, "and 113 GiB without")])
def test_the_host_ram_that_is_warned_of_is_what_the_estimate_says(pinned: bool | None, told: str) -> None:
    host = ctxplan.estimate({**TIER, "pin_host_memory": pinned}).host_bytes.expected
    assert f" {host / 2**30:.0f} GiB " in told
    assert told in " ".join(PROBING.split())


def test_the_evidence_table_is_what_the_script_writes() -> None:
    run = subprocess.run(
        [sys.executable, "scripts/evidence", "--check"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert run.returncode == 0, run.stderr


def test_every_file_that_the_manual_names_exists() -> None:
    for file in DOCS:
        for name in re.findall(
            r"`((?:estimator|probes|ctxplan|app|evidence|docs|scripts|requirements)/[\w./-]+)`", file.read_text()
        ):
            assert (ROOT / name).exists(), f"{file.name}: {name}"
