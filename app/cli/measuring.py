"""What a person sees of a probe: where it is while it runs, and what it gave."""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import TYPE_CHECKING

import typer
from rich import box
from rich.live import Live
from rich.table import Table
from rich.text import Text

from app.cli.output import person_console, show

if TYPE_CHECKING:
    from probes.measurement import Measurement
    from probes.points import Point
    from probes.protocol import Progress

GIB = 2**30
STYLES = {"ok": "bold green", "out_of_memory": "bold yellow", "host_out_of_memory": "bold yellow"}


class Reporter:
    """On a terminal one line that changes; elsewhere a line for each phase and step."""

    def __init__(self, count: int) -> None:
        """count: points in all."""
        self._count = count
        self._measured = 0
        self._said: object = None
        console = person_console()
        self._live = Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> Reporter:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()

    def progress(self, point: Point, progress: Progress) -> None:
        """Say where the point is."""
        place = f"point {self._measured + 1} of {self._count}, {point.sequence_length:,} tokens: "
        step = f"step {progress.step} of {point.steps}" if progress.step is not None else ""
        if self._live:
            where = f"{step}, {progress.phase}" if step else progress.phase
            self._live.update(Text(f"{place}{where}{_allocated(progress)}"), refresh=True)
            return
        text = f"{place}{step or progress.phase}"
        if self._said != text:
            self._said = text
            typer.echo(f"ctxplan: {text}{_allocated(progress)}", err=True)

    def measured(self, measurement: Measurement) -> None:
        """A point is finished."""
        self._measured += 1
        if not self._live:
            typer.echo(f"ctxplan: {measurement.sequence_length:,} tokens: {measurement.outcome}", err=True)


def show_measurements(measurements: Iterable[Measurement]) -> None:
    """Write the measurements for a person, to standard error."""
    listed = list(measurements)
    if not listed:
        typer.echo("Nothing to measure: every point is finished.", err=True)
        return
    details = [Text(_detail(measurement)) for measurement in listed if measurement.detail]
    show(lambda _: [_table(listed), *details])


def _table(measurements: Iterable[Measurement]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in ("tokens", "layers", "outcome", "path", "allocated\nGiB", "reserved\nGiB", "loss", "s/step"):
        # Where the terminal is narrow, words give way to numbers: half a number is a wrong one.
        is_words = name in ("outcome", "path")
        table.add_column(name, justify="left" if is_words else "right", no_wrap=not is_words)
    for found in measurements:
        last = found.steps[-1] if found.steps else None
        table.add_row(
            f"{found.sequence_length:,}",
            "" if found.num_hidden_layers is None else str(found.num_hidden_layers),
            Text(found.outcome.replace("_", " "), style=STYLES.get(found.outcome, "bold red")),
            (found.execution_path or "").replace("_", " "),
            _gib(found.peak_allocated_bytes),
            _gib(found.peak_reserved_bytes),
            "" if last is None or last.loss is None else f"{last.loss:.4f}",
            "" if last is None else f"{last.seconds:.2f}",
        )
    return table


def _detail(measurement: Measurement) -> str:
    return f"\n{measurement.sequence_length:,} tokens, {measurement.outcome}: {measurement.detail}"


def _allocated(progress: Progress) -> str:
    return "" if progress.allocated_bytes is None else f", {_gib(progress.allocated_bytes)} GiB allocated"


def _gib(size_bytes: int | None) -> str:
    return "" if size_bytes is None else f"{size_bytes / GIB:,.2f}"
