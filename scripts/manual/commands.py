"""The command line: every command with its arguments and options, as `--help` has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import typer

from app.cli import application
from estimator.job import RULES
from scripts.manual.markdown import code, document, prose, table

HELP_FLAGS = frozenset({"--help"})
NOTE = re.compile(r"default: |required$|env var: ")
RANGE = re.compile(r"(-?[\d.]+<=?)?x([<>]=?-?[\d.]+)?")


class Command(NamedTuple):
    """A command with the words that call it. ``made``: what Typer made of it, with its context."""

    words: str
    made: Any
    context: Any


def page() -> str:
    """The reference of commands."""
    return document(
        "Command line",
        "JSON goes alone to standard output, and everything that a person reads to standard error. Exit codes: 0 fits, "
        "or done; 1 does not fit; 2 bad usage, unreadable input, or something that is not known; 3 uncertain; 4 a "
        "service cannot be reached. Where a command has others, it says so. `-` stands for standard input where a file "
        "is read.",
        *map(_entry, commands()),
    )


def commands() -> list[Command]:
    """Every command, in the program's order; groups by what they hold."""
    root: Any = typer.main.get_command(application)
    return list(_below(root, root.make_context("ctxplan", [], resilient_parsing=True), "ctxplan"))


def options(command: Command) -> list[Any]:
    """What a command takes beside a job's own keys."""
    job = set(RULES) if takes_job(command) else set()
    return [one for one in command.made.params if one.name not in job and not HELP_FLAGS & set(one.opts)]


def takes_job(command: Command) -> bool:
    """Whether every key of a job is an option of the command."""
    return set(RULES) <= {one.name for one in command.made.params}


def _below(command: Any, context: Any, words: str) -> Iterator[Command]:
    if not hasattr(command, "commands"):
        yield Command(words, command, context)
        return
    for name, one in command.commands.items():
        inner = one.make_context(name, [], parent=context, resilient_parsing=True)
        yield from _below(one, inner, f"{words} {name}")


def _entry(command: Command) -> str:
    pieces = " ".join(command.made.collect_usage_pieces(command.context))
    usage = pieces.replace("[[", "[").replace("]]", "]")
    flags = "Beside these, every [key of a job](keys.md) as an option." if takes_job(command) else ""
    rows = [row for one in options(command) if (row := _row(one, command.context))]
    parts = [
        f"## {command.words}",
        prose(command.made.help),
        f"```\n{command.words} {usage}\n```",
        table(("argument or option", "meaning"), rows),
        flags,
    ]
    return "\n\n".join(part for part in parts if part)


def _row(parameter: Any, context: Any) -> tuple[str, str] | None:
    if getattr(parameter, "hidden", False):
        return None
    name, text = parameter.get_help_record(context) or (parameter.name, parameter.help or "")
    if parameter.param_type_name == "argument":
        name = (parameter.metavar or parameter.name.upper()).strip("[]")
    said, notes = _split(text)
    default = next((note.partition(": ")[2] for note in notes if note.startswith("default: ")), "")
    more = [
        "Required." if "required" in notes else "",
        *(f"Within {code(note)}." for note in notes if RANGE.fullmatch(note)),
        f"By default {code(default)}." if default else "",
        f"Without it, {code(parameter.envvar)}." if parameter.envvar else "",
    ]
    return code(name), " ".join(filter(None, (prose(said), *more)))


def _split(text: str) -> tuple[str, list[str]]:
    """A parameter's help, and what Typer notes in brackets after it."""
    found = re.fullmatch(r"(.*?)\s*\[([^\[\]]+)\]", text, re.DOTALL)
    notes = found[2].split("; ") if found else []
    if found is None or not all(NOTE.match(note) or RANGE.fullmatch(note) for note in notes):
        return text, []
    return found[1], notes
