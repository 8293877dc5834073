"""The figures of docs/accuracy.md, as SVG: the same file for the same points."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from probes.fitting.judge import Judged
from probes.fitting.split import is_left_out

GIB = 2**30
STYLES = {
    "eager": ("#0072b2", "o"),
    "block_compiled": ("#d55e00", "s"),
    "generated": ("#009e73", "^"),
    "transformers": ("#cc79a7", "D"),
}
"""Colours that colour-blind readers tell apart (Okabe and Ito), and shapes for whoever prints them grey."""


def draw_peaks(judged: Sequence[Judged], file: Path) -> None:
    """Expected against measured allocated peaks, by path; filled where no fit has seen the family."""
    figure, axes = _figure("measured peak, GiB", "expected peak, GiB")
    _scatter(axes, judged, lambda one: (one.one.peak_bytes / GIB, one.answer.allocated.expected / GIB))
    ends = [min(one.one.peak_bytes for one in judged) / GIB, max(one.one.peak_bytes for one in judged) / GIB]
    axes.plot(ends, ends, color="0.6", linewidth=0.8, zorder=0)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _write(figure, axes, file)


def draw_errors(judged: Sequence[Judged], file: Path) -> None:
    """The signed error against the tokens of a micro-batch, by path."""
    figure, axes = _figure("tokens in a micro-batch", "expected over measured peak, less one, %")
    _scatter(axes, judged, lambda one: (one.one.z.tokens, 100 * one.error))
    axes.axhline(0, color="0.6", linewidth=0.8, zorder=0)
    axes.set_xscale("log", base=2)
    _write(figure, axes, file)


def _figure(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="0.9", linewidth=0.6)
    return figure, axes


def _scatter(axes: Axes, judged: Sequence[Judged], place: Callable[[Judged], tuple[float, float]]) -> None:
    for path, (colour, marker) in STYLES.items():
        for seen, label in ((False, f"{path}, family left out"), (True, f"{path}, fitted")):
            here = [one for one in judged if one.one.path == path and is_left_out(one.one.family) is not seen]
            if here:
                x, y = zip(*(place(one) for one in here), strict=True)
                face = "none" if seen else colour
                axes.scatter(x, y, s=22, marker=marker, edgecolors=colour, facecolors=face, linewidths=0.9, label=label)


def _write(figure: Figure, axes: Axes, file: Path) -> None:
    axes.legend(fontsize=7, frameon=False)
    with matplotlib.rc_context({"svg.hashsalt": "ctxplan", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": "ctxplan"})
