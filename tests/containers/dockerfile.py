"""The Dockerfile's instructions, stage by stage."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).resolve().parents[2]


class Step(NamedTuple):
    """An instruction of a stage."""

    stage: str
    name: str
    value: str


def steps() -> Iterator[Step]:
    stage = ""
    for one in DockerfileParser(str(ROOT / "Dockerfile")).structure:
        if one["instruction"] == "FROM":
            stage = one["value"].rpartition(" ")[2]
        if one["instruction"] != "COMMENT":
            yield Step(stage, one["instruction"], re.sub(r"\s+", " ", one["value"]))


STEPS = tuple(steps())


def of(stage: str, name: str) -> list[str]:
    return [step.value for step in STEPS if (step.stage, step.name) == (stage, name)]


def environment_of(stage: str) -> dict[str, str]:
    pairs = (word.partition("=") for line in of(stage, "ENV") for word in shlex.split(line.replace("\\ ", "")))
    return {name: value for name, _, value in pairs}
