"""``ctxplan probe``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.jobs import Json
from app.cli.output import BAD_INPUT, DOES_NOT_FIT, DONE, FAILED, leave, print_json
from app.jsontext import MAX_DOCUMENT_BYTES, UnreadableJson, read_json
from estimator import find_device
from estimator.errors import CtxplanError, UnknownDevice

if TYPE_CHECKING:
    from probes.measurement import Measurement
    from probes.points import Point
    from probes.supervise import Options

    Groups = list[tuple[Point, ...]]

GIB = 2**30
MAX_SWEEP_BYTES = 2**26
DID_NOT_FIT = ("out_of_memory", "host_out_of_memory")


def register(application: typer.Typer) -> None:
    """Add this file's command."""
    application.command("probe")(probe)


def probe(
    point_file: Annotated[
        str,
        typer.Argument(metavar="POINT.json|-", help="A job, or a point, as JSON; - reads standard input."),
    ],
    as_json: Json = False,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.jsonl", help="Add each measurement to this file.", show_default=False)
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="POINT.json has a point a line; those that --out has are not run again.")
    ] = False,
    time_limit: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="For one point.")] = 1800,
    snapshot: Annotated[bool, typer.Option("--snapshot", help="Name the largest tensors alive at the peak.")] = False,
    steps: Annotated[int | None, typer.Option(min=2, max=1000, help="Optimizer steps.", show_default=False)] = None,
    trainer: Annotated[
        str | None, typer.Option(metavar="sft|loop", help="TRL's SFTTrainer, or a bare loop.", show_default=False)
    ] = None,
    cap_gib: Annotated[
        float | None, typer.Option(min=1, help="Hold the card down to one of as many GiB.", show_default=False)
    ] = None,
    cap_bytes: Annotated[int | None, typer.Option(min=GIB, help="The same, in bytes.", show_default=False)] = None,
    device_index: Annotated[
        int | None, typer.Option(min=0, help="Which of the visible GPUs.", show_default=False)
    ] = None,
    any_gpu: Annotated[bool, typer.Option("--any-gpu", help="Measure on another kind of card than the job's.")] = False,
    keep_output: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep what the process wrote here.", show_default=False)
    ] = None,
) -> None:
    """Measure a job on this machine's GPU: real steps in a process of their own, and what memory they took."""
    if cap_gib is not None and cap_bytes is not None:
        leave("--cap-gib and --cap-bytes say the same thing: give one of them")
    if sweep and out is None:
        leave("--sweep needs --out: finished points are known from there")
    if trainer not in (None, "sft", "loop"):
        leave(f"--trainer {trainer}: not one (allowed: sft, loop)")
    need_the_probe()
    from probes.supervise import Options

    options = Options(
        time_limit_seconds=time_limit,
        snapshot=snapshot,
        device_index=device_index,
        any_gpu=any_gpu,
        keep_output=keep_output,
    )
    cap = int(cap_gib * GIB) if cap_gib is not None else cap_bytes
    given = {"steps": steps, "trainer": trainer, "cap_bytes": cap}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    fill = _gpu_filler(device_index)
    groups = [tuple(replace(point, **changes) for point in group) for group in _groups(point_file, fill, sweep=sweep)]
    measurements = _measure(groups, out, options, resume=sweep)
    if as_json:
        documents = [measurement.model_dump(mode="json") for measurement in measurements]
        alone = not sweep and len(groups[0]) == 1
        print_json(documents[0] if alone else {"items": documents})
    else:
        from app.cli.measuring import show_measurements

        show_measurements(measurements)
    raise typer.Exit(exit_code([measurement.outcome for measurement in measurements]))


def exit_code(outcomes: Sequence[str]) -> int:
    """The code of the worst of them."""
    if any(outcome != "ok" and outcome not in DID_NOT_FIT for outcome in outcomes):
        return FAILED
    return DOES_NOT_FIT if any(outcome in DID_NOT_FIT for outcome in outcomes) else DONE


def need_the_probe() -> None:
    """Leave with what to install where this is a base install."""
    """Leave with what to install where the probe's packages are missing."""
    try:
        import probes.measurement  # noqa: F401
    except ImportError as error:
        leave(f"the probe is not installed ({error.name} is missing): pip install 'ctxplan[probe]'", code=BAD_INPUT)


def _measure(groups: Groups, out: Path | None, options: Options, *, resume: bool) -> list[Measurement]:
    from app.cli.measuring import Reporter
    from probes.files import append_document, check_writable
    from probes.sweep import measure_group, sweep

    with Reporter(sum(len(group) for group in groups)) as reporter:
        if resume and out is not None:
            return sweep(groups, out, options, on_progress=reporter.progress, on_measurement=reporter.measured)
        if out is not None:
            check_writable(out)

        def keep(measurement: Measurement) -> None:
            if out is not None:
                append_document(out, measurement.model_dump(mode="json"))
            reporter.measured(measurement)

        return measure_group(groups[0], options, on_progress=reporter.progress, on_measurement=keep)


def _groups(point_file: str, fill: Callable[[Any], Any], *, sweep: bool) -> Groups:
    """The points of each process, as asked for.

    Raises:
        CtxplanError: the file cannot be read or is not JSON, or what it holds is no point; with the line of a sweep.
    """
    from probes.errors import PointError
    from probes.points import parse_points

    name = "standard input" if point_file == "-" else point_file
    body = _bytes_of(point_file, name, MAX_SWEEP_BYTES if sweep else MAX_DOCUMENT_BYTES)
    if not body.strip():
        raise UnreadableJson(f"{name}: is empty")
    if not sweep:
        return [parse_points(fill(_read(body, name)))]
    groups = []
    for place, line in _lines(body, name):
        try:
            groups.append(parse_points(fill(_read(line, place))))
        except UnreadableJson:
            raise
        except CtxplanError as error:
            raise PointError(f"{place}: {error}") from None
    return groups


def _lines(body: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    for number, line in enumerate(body.splitlines(), 1):
        if line.strip():
            yield f"{name}: line {number}", line


def _read(body: bytes, name: str) -> Any:
    try:
        return read_json(body)
    except UnreadableJson as error:
        raise UnreadableJson(f"{name}: {error.message}", key=error.key, allowed=error.allowed) from None


def _bytes_of(point_file: str, name: str, most_bytes: int) -> bytes:
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
    return body


def _gpu_filler(device_index: int | None) -> Callable[[Any], Any]:
    """What puts the card of this machine into a job that names none; without a card, nothing."""
    from probes.nvml import find_card

    card = find_card(device_index)
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
