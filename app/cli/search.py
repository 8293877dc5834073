"""``ctxplan longest``: the longest context that really runs on this card."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.jobs import Json
from app.cli.output import DOES_NOT_FIT, DONE, FAILED, leave, print_json
from app.cli.probe import need_the_probe
from app.jsontext import UnreadableJson, read_json

if TYPE_CHECKING:
    from probes.measurement import Measurement
    from probes.points import Point

PointFile = Annotated[Path, typer.Argument(metavar="POINT.json", show_default=False, help="The point, or its job.")]
Low = Annotated[int, typer.Option("--low", metavar="N", help="Run nothing shorter, in tokens.")]
High = Annotated[int | None, typer.Option("--high", metavar="N", show_default=False, help="Run nothing longer.")]
Resolution = Annotated[int, typer.Option("--resolution", metavar="N", help="How near to the end to come, in tokens.")]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FILE.jsonl",
        show_default=False,
        help="Keep each measurement here; what is there already is not run again.",
    ),
]
TimeLimit = Annotated[float, typer.Option("--time-limit", metavar="SECONDS", min=1, help="Of one run.")]


def register(application: typer.Typer) -> None:
    """Add this file's command."""
    application.command("longest")(longest)


def longest(
    point_file: PointFile,
    as_json: Json = False,
    low: Low = 1,
    high: High = None,
    resolution: Resolution = 1024,
    out: Out = None,
    time_limit: TimeLimit = 3600,
) -> None:
    """Find the longest context that runs on this card, by real training steps. Exit code 1 where none does."""
    need_the_probe()
    from estimator.job import MAX_TOKENS
    from probes.nvml import find_card
    from probes.search import SearchError, remembered, search

    point = _point(point_file)
    if find_card() is None:
        leave("the longest context is that of a GPU, and this machine shows none")
    run = partial(run_one, time_limit=time_limit)
    kept = remembered(run, out) if out else run
    try:
        found = search(point, kept, low, MAX_TOKENS if high is None else high, resolution)
    except SearchError as error:
        leave(str(error), code=FAILED)
    if as_json:
        print_json(
            {
                "longest_ok": found.longest_ok,
                "shortest_out_of_memory": found.shortest_out_of_memory,
                "limited_by": found.limited_by,
                "planned": {"expected": found.expected, "safe": found.safe},
                "measurements": [one.model_dump(mode="json") for one in found.measurements],
            }
        )
    else:
        _tell(found.longest_ok, found.shortest_out_of_memory, found.limited_by)
    raise typer.Exit(DONE if found.longest_ok else DOES_NOT_FIT)


def run_one(point: Point, *, time_limit: float) -> Measurement:
    """Measure a point in a fresh process, saying where it is on standard error."""
    from app.cli.measuring import Reporter
    from probes.supervise import Options, measure

    with Reporter(1) as reporter:
        report = partial(reporter.progress, point)
        options = Options(time_limit_seconds=time_limit)
        return measure([point], options, on_progress=report, on_measurement=reporter.measured)[0]


def _point(file: Path) -> Point:
    from probes.points import parse_point

    try:
        return parse_point(read_json(file.read_bytes()))
    except OSError as error:
        raise UnreadableJson(f"{file}: cannot be read: {error.strerror}") from None
    except UnreadableJson as error:
        raise UnreadableJson(f"{file}: {error.message}", key=error.key, allowed=error.allowed) from None


def _tell(longest_ok: int, end: int | None, limited_by: str) -> None:
    if not longest_ok:
        typer.echo(f"No length runs: {end:,} tokens do not, for want of {limited_by} memory.", err=True)
    elif end is None:
        typer.echo(f"{longest_ok:,} tokens run; nothing longer was allowed.", err=True)
    else:
        typer.echo(f"{longest_ok:,} tokens run, {end:,} do not, for want of {limited_by} memory.", err=True)
