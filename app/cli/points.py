"""Points from a file or from standard input, for the card of this machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.jsontext import MAX_DOCUMENT_BYTES, UnreadableJson, read_json
from estimator import find_device
from estimator.errors import CtxplanError, UnknownDevice

if TYPE_CHECKING:
    from probes.nvml import Card
    from probes.points import Point

    Groups = list[tuple[Point, ...]]

MAX_SWEEP_BYTES = 2**26

PointFile = Annotated[
    str, typer.Argument(metavar="POINT.json|-", help="A job, or a point, as JSON; - reads standard input.")
]
DeviceIndex = Annotated[
    int | None,
    typer.Option(min=0, metavar="N", help="Which of the visible GPUs, as nvidia-smi counts.", show_default=False),
]
AnyGpu = Annotated[bool, typer.Option("--any-gpu", help="Measure on another kind of card than the job's.")]
KeepOutput = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Keep what the process wrote here.", show_default=False)
]
Cache = Annotated[
    Path | None,
    typer.Option(
        "--cache",
        metavar="DIR",
        help="Keep compiled kernels here, so that the next process has them.",
        show_default=False,
    ),
]


def read_points(point_file: str, card: Card | None) -> tuple[Point, ...]:
    """The points that a file stands for; a job that names no card is for this one.

    Raises:
        CtxplanError: the file cannot be read or is not JSON, or what it holds is no point.
    """
    from probes.points import parse_points

    name, body = _body(point_file, MAX_DOCUMENT_BYTES)
    return parse_points(_filler(card)(_read(body, name)))


def read_sweep(point_file: str, card: Card | None) -> Groups:
    """The points of each line, which share a process.

    Raises:
        CtxplanError: as `read_points`, with the line.
    """
    from probes.errors import PointError
    from probes.points import parse_points

    fill, (name, body) = _filler(card), _body(point_file, MAX_SWEEP_BYTES)
    groups = []
    for place, line in _lines(body, name):
        try:
            groups.append(parse_points(fill(_read(line, place))))
        except UnreadableJson:
            raise
        except CtxplanError as error:
            raise PointError(f"{place}: {error}") from None
    return groups


def is_same_file(point_file: str, out: Path) -> bool:
    """Whether the points would be written over by what they give."""
    try:
        return os.path.samefile(sys.stdin.fileno() if point_file == "-" else point_file, out)
    except (OSError, ValueError, AttributeError):  # one of them is not there, or standard input is no file
        return False


def _body(point_file: str, most_bytes: int) -> tuple[str, bytes]:
    """What to call the file, and its content."""
    name = "standard input" if point_file == "-" else point_file
    try:
        if point_file == "-":
            if sys.stdin is None:
                raise ValueError("it is closed")
            body = sys.stdin.buffer.read(most_bytes + 1)
        else:
            with Path(point_file).open("rb") as file:
                body = file.read(most_bytes + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableJson(f"{name}: cannot be read: {reason}") from None
    if len(body) > most_bytes:
        raise UnreadableJson(f"{name}: too large", allowed=f"at most {most_bytes} bytes")
    if not body.strip():
        raise UnreadableJson(f"{name}: is empty")
    return name, body


def _lines(body: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    for number, line in enumerate(body.splitlines(), 1):
        if line.strip():
            yield f"{name}: line {number}", line


def _read(body: bytes, name: str) -> Any:
    try:
        return read_json(body)
    except UnreadableJson as error:
        raise UnreadableJson(f"{name}: {error.message}", key=error.key, allowed=error.allowed) from None


def _filler(card: Card | None) -> Callable[[Any], Any]:
    """What puts the card of this machine into a job that names none; without a card, nothing."""
    if card is None:
        return lambda data: data
    try:
        gpu: Any = find_device(card.name).name
    except UnknownDevice:
        gpu = {"name": card.name, "total_bytes": card.total_bytes}

    def fill(data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        if "job" in data:
            return {**data, "job": fill(data["job"])} if isinstance(data["job"], Mapping) else data
        return {"gpu": gpu, **data}

    return fill
