"""``ctxplan tokens``: how long documents are in tokens, and which max_seq_length they ask for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from app.cli.jobs import Json, Offline
from app.cli.output import person_console, print_json, show
from ctxplan.token_lengths import (
    BATCH_SIZE,
    MAX_CUT_PERCENT,
    MOST_LENGTHS,
    DocumentsError,
    Question,
    TokenLengths,
)
from estimator.job import MAX_TOKENS

if TYPE_CHECKING:
    from app.tokens.counting import Reading


SampleBy = Literal["line", "paragraph", "document"]
Files = Annotated[
    list[str],
    typer.Argument(
        metavar="FILE...",
        show_default=False,
        help="Text, JSON Lines, Parquet or Arrow files, directories of save_to_disk, or - for JSON Lines.",
    ),
]
TokenizerName = Annotated[
    str,
    typer.Option(
        "--tokenizer",
        "--model",
        metavar="TEXT",
        show_default=False,
        help="A tokenizer.json, a model's directory, or a Hub id.",
    ),
]
FieldNames = Annotated[
    str | None, typer.Option("--field", metavar="LIST", show_default=False, help="Columns that are the document.")
]
Split = Annotated[
    str | None, typer.Option("--split", metavar="NAME", show_default=False, help="Read this split of a saved dataset.")
]
Sample = Annotated[SampleBy, typer.Option("--sample-by", help="What of a text file is one document.")]
Lengths = Annotated[
    str | None,
    typer.Option(
        "--max-seq-lengths",
        metavar="LIST",
        show_default=False,
        help="Lengths to look at; else 2048, its doublings, and the longest.",
    ),
]
MaxCut = Annotated[
    float,
    typer.Option(
        "--max-cut", metavar="PERCENT", min=0, max=100, help="Documents, and tokens, that a length may cut at most."
    ),
]
Batch = Annotated[
    int, typer.Option("--per-device-train-batch-size", metavar="N", min=1, max=65_536, help="Documents of a batch.")
]
Special = Annotated[
    bool | None,
    typer.Option(
        "--special-tokens/--no-special-tokens",
        show_default=False,
        help="Count the tokens that the tokenizer adds; else as Unsloth's trainer would.",
    ),
]
SkipBad = Annotated[
    int, typer.Option("--skip-bad", metavar="N", min=0, help="Leave out up to so many rows that hold no document.")
]


def register(application: typer.Typer) -> None:
    """Add this file's command."""
    application.command("tokens")(tokens)


def tokens(
    files: Files,
    tokenizer: TokenizerName,
    as_json: Json = False,
    field: FieldNames = None,
    split: Split = None,
    sample_by: Sample = "line",
    max_seq_lengths: Lengths = None,
    max_cut: MaxCut = MAX_CUT_PERCENT,
    batch_size: Batch = BATCH_SIZE,
    special_tokens: Special = None,
    skip_bad: SkipBad = 0,
    offline: Offline = False,
) -> None:
    """Count the tokens of documents: percentiles, what each max_seq_length cuts, and what packing saves."""
    from app.tokens.counting import Options, Reading, count
    from app.tokens.files import find_sources
    from app.tokens.tokenizer import ModelTokenizer, find_tokenizer, need_tokenizers

    question = Question(
        max_seq_lengths=_lengths(max_seq_lengths), max_cut_percent=max_cut, per_device_train_batch_size=batch_size
    )
    sources = find_sources(files, split=split, sample_by=sample_by)
    need_tokenizers()
    model = ModelTokenizer(find_tokenizer(tokenizer, offline=offline), tokenizer)
    options = Options(columns=_names(field), add_special_tokens=special_tokens, skip_bad=skip_bad)
    reading = Reading(sources, model, options)
    with progress(reading) as on_batch:
        counts = count(reading.batches(), model, on_batch)
    report = TokenLengths(counts).report(question)
    if as_json:
        print_json({**report.to_json(), **_reading(reading, files)})
        return
    from app.tokens.render import render_report

    skipped = [f"rows left out as holding no document: {reading.skipped}"] if reading.skipped else []
    show(lambda paper: render_report(report, [*reading.notes, *skipped], paper))


def _reading(reading: Reading, files: Sequence[str]) -> dict[str, Any]:
    return {
        "tokenizer": reading.tokenizer.name,
        "files": list(files),
        "fields": reading.fields,
        "skipped_rows": reading.skipped,
        "notes": reading.notes,
    }


def _lengths(text: str | None) -> tuple[int, ...]:
    parts = _names(text)
    lengths = [int(part) if part.isascii() and part.isdigit() and len(part) < 12 else 0 for part in parts]
    if len(lengths) > MOST_LENGTHS or not all(1 <= length <= MAX_TOKENS for length in lengths):
        allowed = f"a comma list of at most {MOST_LENGTHS} whole numbers from 1 to {MAX_TOKENS}"
        raise DocumentsError(f'"{text}" is not accepted', key="max_seq_lengths", allowed=allowed)
    return tuple(lengths)


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip())


@contextmanager
def progress(reading: Reading) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, and nothing elsewhere."""
    console = person_console()
    if not console.is_terminal:
        yield lambda documents, tokens: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    total = sum(source.size_bytes for source in reading.sources) or None
    columns = (BarColumn(), TransferSpeedColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)

        def on_batch(documents: int, tokens: int) -> None:
            told = f"{documents:,} documents, {tokens:,} tokens"
            bar.update(task, completed=reading.done_bytes(), description=told)

        yield on_batch
