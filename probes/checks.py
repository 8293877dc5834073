"""What is checked before anything is started: the points, the packages, the card."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

from ctxplan.models import resolve_model
from estimator import find_device
from probes.child.config import WEIGHTS
from probes.document import Result
from probes.errors import PointError, ProbeUnavailable
from probes.neighbours import busy
from probes.nvml import Card, CardWatch
from probes.points import Point

SETTLE_SECONDS, SETTLE_TRIES = 0.25, 12
"""When a process was killed, the driver takes a moment to give its memory back."""
TOKENIZERS = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tekken.json",
    "*.tiktoken",
)


def check_together(points: Sequence[Point]) -> None:
    """Raise PointError unless the points can share a process."""
    if not points:
        raise PointError("no points are given", allowed="at least one")
    first = _but_for_the_length(points[0])
    for point in points[1:]:
        differing = next((key for key, value in _but_for_the_length(point).items() if value != first[key]), None)
        if differing:
            raise PointError("differs between the points of one process", key=differing, allowed="other lengths alone")


def check_installed(points: Sequence[Point]) -> None:
    """Raise ProbeUnavailable where a package is missing; nothing is imported."""
    missing = dict.fromkeys(name for point in points for name in missing_packages(point))
    if missing:
        raise ProbeUnavailable(f"not installed: {', '.join(missing)}; pip install 'ctxplan[probe]'")


def located(point: Point) -> Point:
    """The point with its model's directory, where it names one of this machine, as an absolute path."""
    folder = _directory(point)
    return point if folder is None else replace(point, job=replace(point.job, model=str(folder)))


def check_checkpoint(point: Point) -> None:
    """Raise PointError where the model is a real checkpoint that lacks its tokenizer."""
    folder = _directory(point)
    if folder is None or not any((folder / name).is_file() for name in WEIGHTS):
        return
    if not any(file.is_file() for name in TOKENIZERS for file in folder.glob(name)):
        allowed = f"a directory that has one of {', '.join(TOKENIZERS)}, or one with config.json alone"
        raise PointError("has weights and no tokenizer", key="job.model", allowed=allowed)


def missing_packages(point: Point, find: Callable[[str], object] = find_spec) -> tuple[str, ...]:
    """What the point needs and this Python does not find."""
    wanted = ["torch", "transformers", "peft"]
    wanted += ["unsloth", "unsloth_zoo"] if point.job.framework == "unsloth" else []
    wanted += ["trl", "datasets"] if point.trainer == "sft" else []
    return tuple(name for name in wanted if not _found(name, find))


def refusal(points: Sequence[Point], card: Card, *, any_gpu: bool) -> Result | None:
    """Why the card is not used, as the result of every point; None where it can be."""
    for point in points:
        wrong = None if any_gpu or point.cap_bytes else wrong_gpu(point, card)
        if wrong:
            return Result(outcome="wrong_gpu", detail=wrong)
    occupied = _occupied(card)
    return Result(outcome="neighbour", detail=occupied) if occupied else None


def wrong_gpu(point: Point, card: Card) -> str | None:
    """What is wrong with the card for the job, in words; None where it is of the job's kind.

    Raises:
        UnknownDevice: the job's GPU is not in the catalogue.
    """
    asked = find_device(point.job.gpu)
    here = find_device({"name": card.name, "total_bytes": card.total_bytes})
    return None if asked.name == here.name else f"the job is for {asked.name}, and this card is {card.name}"


def _directory(point: Point) -> Path | None:
    """The directory that the job's model is read from, absolute; None where it is none."""
    model = point.job.model
    if not isinstance(model, str) or resolve_model(model, offline=True).source != "directory":
        return None
    return Path(model).expanduser().resolve()


def _found(name: str, find: Callable[[str], object]) -> bool:
    try:
        return find(name) is not None
    except ValueError:  # sys.modules has a None for it
        return False


def _but_for_the_length(point: Point) -> dict[str, object]:
    """The point by its keys, the job's among them."""
    whole = point.to_json()
    job = {f"job.{key}": value for key, value in whole.pop("job").items() if key != "sequence_length"}
    return {**whole, **job}


def _occupied(card: Card) -> str | None:
    """Who is on the card, and stays there."""
    found = None
    with CardWatch(card) as watch:
        for tried in range(SETTLE_TRIES):
            if tried:
                time.sleep(SETTLE_SECONDS)
            sample = watch.sample()
            found = busy(sample) if sample is not None else None
            if found is None:
                break
    return found
