"""What every command shares: exit codes, where text goes, and errors without a traceback."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from estimator.errors import CtxplanError

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from app.render import Paper

DONE, DOES_NOT_FIT, BAD_INPUT, UNCERTAIN, UNREACHABLE = 0, 1, 2, 3, 4
FAILED = 70
"""A fault of this program (EX_SOFTWARE): none of the answers."""

WHOLE_ROWS = 1000
"""Columns that no row of a table needs."""

EXIT_CODES = {"fits": DONE, "does_not_fit": DOES_NOT_FIT, "uncertain": UNCERTAIN}


def run(application: Callable[[], Any]) -> NoReturn:
    """Run the program and leave with its exit code; what it raises becomes one line on standard error."""
    try:
        application()
    except CtxplanError as error:
        leave(str(error))
    except BrokenPipeError:
        _silence_standard_output()
        sys.exit(DONE)
    except Exception as error:  # the last resort: a person gets a line, not a traceback
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(place.filename)}:{place.lineno}"
        leave(f"internal error in {where}: {type(error).__name__}: {error}", code=FAILED)
    sys.exit(DONE)


def leave(message: str, *, code: int = BAD_INPUT) -> NoReturn:
    """Say what is wrong on standard error, and leave."""
    typer.echo(f"ctxplan: error: {message}", err=True)
    sys.exit(code)


def leave_with_verdict(verdict: str) -> NoReturn:
    """Leave with the exit code of a verdict."""
    raise typer.Exit(EXIT_CODES[verdict])


def print_json(content: Mapping[str, Any]) -> None:
    """Write JSON to standard output, alone."""
    print_text(json.dumps(content, indent=2) + "\n")


def print_text(text: str) -> None:
    """Write to standard output. A reader that has gone away (``| head``) changes nothing about the answer or
    its exit code."""
    try:
        # Bytes, so that a terminal's encoding cannot refuse a model's name.
        typer.echo(text.encode(), nl=False)
    except BrokenPipeError:
        _silence_standard_output()
    except OSError as error:
        _silence_standard_output()
        leave(f"standard output cannot be written: {error.strerror}", code=FAILED)


def show(render: Callable[[Paper], Iterable[RenderableType]]) -> None:
    """Write for a person, to standard error: as wide as the terminal, in colour only where that is wanted. A table that
    goes into a file or a pipe has its rows whole, however wide, so that what is looked for in it is found.

    Args:
        render: makes the parts, given what they are written on.
    """
    from app.render import Paper

    console = person_console()
    columns = console.width
    keeps_rows = not sys.stderr.isatty() and "COLUMNS" not in os.environ
    with console.capture() as written:
        for part in render(Paper(columns, blocks="utf" in console.encoding.lower())):
            console.width = WHOLE_ROWS if keeps_rows and _is_table(part) else columns
            console.print(part)
    # Tables pad their last column; nobody who pastes an answer wants that.
    typer.echo("\n".join(line.rstrip() for line in written.get().splitlines()), err=True, color=True)


def person_console() -> Console:
    """Standard error for a person; rich obeys NO_COLOR, TERM, COLUMNS and what is not a terminal."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=False, emoji=False, markup=False)


def _is_table(part: RenderableType) -> bool:
    """Whether it is a table with a head, and not text that is set in columns."""
    from rich.table import Table

    return isinstance(part, Table) and part.box is not None


def _silence_standard_output() -> None:
    """Point standard output at nothing, so that the interpreter's last flush does not fail as well."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
