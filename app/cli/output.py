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
    """Write for a person, to standard error: as wide as the terminal, in colour only where that is wanted.

    Args:
        render: makes the parts, given what they are written on.
    """
    from app.render import Paper

    console = person_console()
    with console.capture() as written:
        for part in render(Paper(console.width, blocks="utf" in console.encoding.lower())):
            console.print(part)
    # Tables pad their last column; nobody who pastes an answer wants that.
    typer.echo("\n".join(line.rstrip() for line in written.get().splitlines()), err=True, color=True)


def person_console() -> Console:
    """Standard error for a person; rich obeys NO_COLOR, TERM, COLUMNS and what is not a terminal."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=False, emoji=False, markup=False)


def _silence_standard_output() -> None:
    """Point standard output at nothing, so that the interpreter's last flush does not fail as well."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
