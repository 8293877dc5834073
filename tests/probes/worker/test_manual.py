"""docs/worker.md tells what the command takes and how it ends."""

from __future__ import annotations

import re
from pathlib import Path

import typer.main

from app.cli import application
from app.cli.output import DONE, UNREACHABLE
from probes.worker.heartbeat import BUSY_SECONDS
from probes.worker.patience import Patience

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "worker.md").read_text()


def test_it_has_every_option_of_the_command_and_no_other() -> None:
    command = typer.main.get_command(application).commands["worker"]  # type: ignore[attr-defined]
    taken = {name for one in command.params if not getattr(one, "hidden", False) for name in one.opts}
    told = set(re.findall(r"`(--[a-z-]+)", TEXT)) - {"--scope"}
    assert told == taken - {"--help"}


def test_it_has_every_exit_code() -> None:
    told = {int(code) for code in re.findall(r"^\| (\d) \|", TEXT, re.MULTILINE)}
    assert told == {DONE, 2, UNREACHABLE}


def test_the_longest_wait_is_the_one_that_it_names() -> None:
    assert f"up to {Patience().longest_seconds:.0f} seconds" in TEXT


def test_a_cancellation_comes_as_soon_as_it_says() -> None:
    assert f"the next heartbeat, every {BUSY_SECONDS:.0f} seconds" in TEXT
