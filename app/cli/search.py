"""``ctxplan longest``: the longest context that really runs on this card."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.jobs import Json
from app.cli.output import DOES_NOT_FIT, DONE, FAILED, leave, print_json
from app.cli.points import AnyGpu, Cache, DeviceIndex, KeepOutput, PointFile, is_same_file, read_points
from app.cli.probe import need_the_probe

if TYPE_CHECKING:
    from probes.measurement import Measurement
    from probes.points import Point
    from probes.search import Longest, Measure

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
    device_index: DeviceIndex = None,
    any_gpu: AnyGpu = False,
    keep_output: KeepOutput = None,
    cache: Cache = None,
) -> None:
    """Find the longest context that runs on this card, by real training steps. Exit code 1 where none does."""
    if out is not None and is_same_file(point_file, out):
        leave(f"--out {out}: is the file of the point, which would be written over")
    need_the_probe()
    from estimator.job import MAX_TOKENS
    from probes.errors import PointError
    from probes.nvml import find_card
    from probes.search import SearchError, search

    card = find_card(device_index)
    points = read_points(point_file, card)
    if len(points) > 1:
        raise PointError("a search has its own lengths", key="sequence_lengths", allowed="none")
    if card is None:
        leave("the longest context is that of a GPU, and this machine shows none")
    run = partial(
        run_one,
        time_limit=time_limit,
        device_index=device_index,
        any_gpu=any_gpu,
        keep_output=keep_output,
        cache_folder=cache,
    )
    try:
        with _keeping(run, out) as measure:
            found = search(points[0], measure, low, MAX_TOKENS if high is None else high, resolution)
    except SearchError as error:
        leave(str(error), code=FAILED)
    _answer(found, as_json=as_json)
    raise typer.Exit(DONE if found.longest_ok else DOES_NOT_FIT)


def run_one(
    point: Point,
    *,
    time_limit: float,
    device_index: int | None = None,
    any_gpu: bool = False,
    keep_output: Path | None = None,
    cache_folder: Path | None = None,
) -> Measurement:
    """Measure a point in a fresh process, saying where it is on standard error."""
    from app.cli.measuring import Reporter
    from probes.supervise import Options, measure

    options = Options(
        time_limit_seconds=time_limit,
        device_index=device_index,
        any_gpu=any_gpu,
        keep_output=keep_output,
        cache_folder=cache_folder,
    )
    with Reporter(1) as reporter:
        report = partial(reporter.progress, point)
        return measure([point], options, on_progress=report, on_measurement=reporter.measured)[0]


@contextmanager
def _keeping(run: Measure, out: Path | None) -> Iterator[Measure]:
    """The same run, each of them kept in the file, which is nobody else's meanwhile."""
    if out is None:
        yield run
        return
    from probes.files import check_writable
    from probes.lock import held
    from probes.search import remembered

    check_writable(out, read_again=True)
    with held(out):
        yield remembered(run, out)


def _answer(found: Longest, *, as_json: bool) -> None:
    if not as_json:
        _tell(found.longest_ok, found.shortest_out_of_memory, found.limited_by)
        return
    print_json(
        {
            "longest_ok": found.longest_ok,
            "shortest_out_of_memory": found.shortest_out_of_memory,
            "limited_by": found.limited_by,
            "planned": {"expected": found.expected, "safe": found.safe},
            "measurements": [one.model_dump(mode="json") for one in found.measurements],
        }
    )


def _tell(longest_ok: int, end: int | None, limited_by: str) -> None:
    if not longest_ok:
        typer.echo(f"No length runs: {end:,} tokens do not, for want of {limited_by} memory.", err=True)
    elif end is None:
        typer.echo(f"{longest_ok:,} tokens run; nothing longer was allowed.", err=True)
    else:
        typer.echo(f"{longest_ok:,} tokens run, {end:,} do not, for want of {limited_by} memory.", err=True)
