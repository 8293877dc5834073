"""The images, as far as no container engine is needed: what is copied is there, and what is installed is pinned."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer

from app.cli import application
from tests.containers.dockerfile import ROOT, STEPS, environment_of, of

NEITHER_LOCKED_NOR_HASHED = {"requirements/probe.txt", "requirements/probe-nodeps.txt"}
"""torch's build is the index's own choice, and what it brings with it no lock can name."""


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, "Dockerfile"], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def copied() -> Iterator[tuple[str, str]]:
    for step in STEPS:
        if step.name == "COPY" and "--from" not in step.value:
            for source in step.value.split()[:-1]:
                yield step.stage, source


@pytest.mark.parametrize(("stage", "source"), list(copied()))
def test_what_a_stage_copies_is_there_and_reaches_the_build(stage: str, source: str) -> None:
    assert (ROOT / source).exists()
    assert not is_ignored(source)


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        "tests/test_docs.py",
        "app/ctxplan.db",
        "app/ctxplan.db-wal",
        "ctxplan.db.secret",
        "app/__pycache__",
        "deploy/secrets/ctxplan_keys_secret",
        "evidence/measurements",
        ".venv",
    ],
)
def test_nothing_else_reaches_the_build(path: str) -> None:
    assert is_ignored(path)


def is_ignored(path: str) -> bool:
    """By .dockerignore's own rule: the last pattern that fits the path, or a folder that it is in, decides."""
    ignored = False
    parents = [*(str(one) for one in reversed(Path(path).parents) if str(one) != "."), path]
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        plain = pattern.removeprefix("!")
        if any(fits(one, plain) for one in parents):
            ignored = not pattern.startswith("!")
    return ignored


def fits(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatch(path.rpartition("/")[2], pattern[3:])
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) == len(wanted) and all(map(fnmatch.fnmatch, parts, wanted))


def test_every_stage_that_is_named_exists_before_it_is_used() -> None:
    known: list[str] = []
    for step in STEPS:
        if step.name == "FROM":
            known.append(step.stage)
        for source in re.findall(r"--from=(\S+)", step.value):
            assert source in known[:-1]
    assert {"server", "probe"} <= set(known)


def installs() -> Iterator[tuple[str, str, bool]]:
    """Each requirements file that a stage installs, and whether its hashes are required."""
    for step in STEPS:
        if step.name == "RUN":
            for command in step.value.split("&&"):
                words = command.split()
                for flag, file in pairwise(words):
                    if flag == "-r":
                        yield step.stage, file, "--require-hashes" in words


def test_only_locked_files_are_installed_and_all_but_torchs_by_their_hashes() -> None:
    found = list(installs())
    assert {file for _, file, _ in found} == {
        "requirements/build.txt",
        "requirements/server.txt",
        *NEITHER_LOCKED_NOR_HASHED,
    }
    assert {file for _, file, hashed in found if not hashed} == NEITHER_LOCKED_NOR_HASHED
    for stage, file, _ in found:
        assert (stage, file) in set(copied())


@pytest.mark.parametrize("file", sorted({file for _, file, hashed in installs() if hashed}))
def test_every_pin_of_a_hashed_file_has_its_hashes(file: str) -> None:
    pins = pins_of(ROOT / file)
    assert pins
    assert not [name for name, text in pins.items() if "--hash=sha256:" not in text]


@pytest.mark.parametrize("file", sorted({file for _, file, _ in installs()}))
def test_everything_that_is_installed_has_one_version(file: str) -> None:
    assert not [name for name, text in pins_of(ROOT / file).items() if "==" not in text]


def pins_of(file: Path) -> dict[str, str]:
    """Each requirement of a lock file by its normal name, with the lines that belong to it."""
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", file.read_text(encoding="utf-8"))
    named = ((re.match(r"[A-Za-z0-9._-]+", entry), entry) for entry in entries)
    return {normal(match[0]): entry for match, entry in named if match}


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def needed(*extras: str) -> set[str]:
    listed = [*PROJECT["dependencies"], *(one for extra in extras for one in PROJECT["optional-dependencies"][extra])]
    names = (re.match(r"[A-Za-z0-9._-]+", one) for one in listed)
    return {normal(match[0]) for match in names if match}


def test_the_server_image_has_what_the_service_needs_and_no_torch() -> None:
    pins = pins_of(ROOT / "requirements/server.txt")
    assert needed("server", "postgres") <= pins.keys()
    assert not pins.keys() & {"torch", "transformers", "unsloth", "triton", "bitsandbytes", "numba"}


def test_the_probe_image_has_what_a_worker_needs() -> None:
    pins = {**pins_of(ROOT / "requirements/probe.txt"), **pins_of(ROOT / "requirements/probe-nodeps.txt")}
    # A CUDA build of torch brings triton.
    assert needed("probe") - {"triton"} <= pins.keys()


@pytest.mark.parametrize(("stage", "command"), [("server", "serve"), ("probe", "worker")])
def test_an_image_runs_a_command_that_exists_as_nobody_in_a_folder_of_its_own(stage: str, command: str) -> None:
    assert of(stage, "USER") == ["10001:10001"]
    assert of(stage, "WORKDIR")[-1:] == of(stage, "VOLUME") == ["/data"]
    assert json.loads(of(stage, "ENTRYPOINT")[0]) == ["ctxplan"]
    assert json.loads(of(stage, "CMD")[0]) == [command]
    typed: Any = typer.main.get_command(application)
    assert command in typed.commands


def test_the_environment_of_the_images_sets_what_the_service_reads() -> None:
    set_there = {name for stage in ("server", "probe") for name in environment_of(stage) if name.startswith("CTXPLAN_")}
    assert set_there == {"CTXPLAN_HOST", "CTXPLAN_PORT"}
    assert of("server", "EXPOSE") == [environment_of("server")["CTXPLAN_PORT"]]
    assert environment_of("server")["HOME"] == environment_of("probe")["HOME"] == "/data"
