"""Token lengths for a person, in a layout that stays readable at 80 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from app.render import NARROWEST_BAR, PAPER, WIDEST_BAR, Paper, bar
from ctxplan.token_lengths import Bucket, Cut, Report

THOUSANDS = ("", " k", " M", " G", " T", " P")


def render_report(report: Report, notes: Sequence[str] = (), paper: Paper = PAPER) -> list[RenderableType]:
    """Which ``max_seq_length`` to ask for first, then the percentiles, the histogram, and what each length does."""
    lengths = report.lengths
    ranks = ", ".join(f"{name} {length:,}" for name, length in report.percentiles.items())
    size = report.question.per_device_train_batch_size
    return [
        _advice(report),
        Text(f"{lengths.documents:,} documents, {lengths.tokens:,} tokens. Lengths: {ranks}."),
        Text("\nDocuments by their length in tokens:"),
        _histogram(lengths.histogram(), paper),
        Text(f"\nWhat each max_seq_length does, in batches of {size}:"),
        _cuts(report),
        Text(
            "padding: its expected share of dense batches; padding-free ones have none. packed rows: of max_seq_length "
            "tokens each, and the batches that they make; batches of an epoch without packing: "
            f"{report.cuts[0].batches:,}."
        ),
        *(Text(f"Note: {note}.") for note in notes),
    ]


def _advice(report: Report) -> Text:
    longest, percent = report.lengths.longest, report.question.max_cut_percent
    found = report.recommended
    if found is None:
        head = (f"No max_seq_length of these cuts at most {percent:g} %", "bold yellow")
        return Text.assemble(head, f" of the documents and of the tokens; {longest:,} cuts nothing.")
    cut = "cuts nothing"
    if found.documents_cut:
        documents = _percent(found.documents_cut, report.lengths.documents)
        lost = _percent(found.tokens_lost, report.lengths.tokens)
        cut = f"cuts {documents} of the documents and loses {lost} of the tokens"
    head = (f"max_seq_length {found.max_seq_length:,}", "bold green")
    return Text.assemble(head, f" {cut} (at most {percent:g} % was asked for); {longest:,} is the longest document.")


def _histogram(buckets: Sequence[Bucket], paper: Paper) -> Table:
    most = max(bucket.documents for bucket in buckets)
    names = [
        f"{b.first_tokens:,}" + (f" to {b.last_tokens:,}" if b.last_tokens > b.first_tokens else "") for b in buckets
    ]
    beside = max(len(name) for name in names) + 18
    cells = max(NARROWEST_BAR, min(2 * WIDEST_BAR, paper.columns - beside))
    table = _table("tokens", "documents", "", numbers=(0, 1))
    for name, bucket in zip(names, buckets, strict=True):
        table.add_row(name, f"{bucket.documents:,}", bar(bucket.documents / most, cells, blocks=paper.blocks))
    return table


def _cuts(report: Report) -> Table:
    columns = ("length", "cut", "share", "tokens lost", "share", "padding", "packed rows", "batches")
    table = _table(*columns, numbers=tuple(range(len(columns))))
    for cut in report.cuts:
        chosen = report.recommended is not None and cut.max_seq_length == report.recommended.max_seq_length
        table.add_row(*_row(cut, report), style="bold" if chosen else None)
    return table


def _row(cut: Cut, report: Report) -> list[str]:
    return [
        f"{cut.max_seq_length:,}",
        _short(cut.documents_cut),
        _percent(cut.documents_cut, report.lengths.documents),
        _short(cut.tokens_lost),
        _percent(cut.tokens_lost, report.lengths.tokens),
        _percent(cut.padding_tokens, cut.padding_tokens + cut.tokens_kept),
        _short(cut.packed.rows),
        _short(cut.packed_batches),
    ]


def _percent(part: int, whole: int) -> str:
    share = part / whole if whole else 0.0
    return "<0.1 %" if 0 < share < 0.0005 else f"{share:.1%}".replace("%", " %")


def _short(number: int) -> str:
    """Exact up to five digits, then in thousands, millions and so on."""
    value, power = float(number), 0
    while value >= 99_999.5 if power == 0 else value >= 999.5:
        value, power = value / 1000, power + 1
    return f"{number:,}" if power == 0 else f"{value:.3g}{THOUSANDS[power]}"


def _table(*columns: str, numbers: tuple[int, ...]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in numbers else "left", overflow="fold")
    return table
