"""``ctxplan tier``: claims about long contexts, with their evidence, and how a card confirms one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.jobs import Json
from app.cli.output import DOES_NOT_FIT, DONE, leave, print_json
from app.cli.probe import need_the_probe
from app.cli.search import run_one
from ctxplan import Planner

if TYPE_CHECKING:
    from ctxplan.tiers import Tier

EVIDENCE = Path("evidence") / "tiers"

Name = Annotated[str, typer.Argument(metavar="NAME", show_default=False, help="The tier (ctxplan tier list).")]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Where NAME.json is written.")]
TimeLimit = Annotated[float, typer.Option("--time-limit", metavar="SECONDS", min=1, help="Of the whole run.")]
Steps = Annotated[int, typer.Option("--steps", metavar="N", min=2, max=1000, help="Optimizer steps.")]
From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        metavar="FILE",
        show_default=False,
        help="Take the run from these measurements (JSON lines), or from an earlier confirmation (NAME.json), "
        "instead of making it again.",
    ),
]


def register(application: typer.Typer) -> None:
    """Add this file's commands."""
    group = typer.Typer(help="Claims about long contexts, and their evidence.", no_args_is_help=True)
    group.command("list")(list_tiers)
    group.command("show")(show)
    group.command("confirm")(confirm)
    application.add_typer(group, name="tier")


def list_tiers(as_json: Json = False) -> None:
    """List the tiers, each with what its evidence says."""
    from ctxplan.tiers import tiers_to_json

    items = tiers_to_json(Planner(offline=True))
    if as_json:
        print_json({"items": items, "next": None})
        return
    for item in items:
        typer.echo(f"{item['name']}: {_state(item)}\n  {item['claim']}", err=True)


def show(name: Name, as_json: Json = False) -> None:
    """Show a tier: the claim, its run, and the whole evidence."""
    from app.cli.tier_text import tier_text
    from ctxplan.tiers import find_tier, read_evidence, tier_to_json

    tier, planner = find_tier(name), Planner(offline=True)
    evidence = read_evidence(tier.name)
    item = tier_to_json(tier, planner, evidence)
    if as_json:
        print_json({**item, "evidence": evidence})
        return
    typer.echo(f"{item['name']}: {_state(item)}\n{tier_text(tier, evidence, planner)}", err=True)
    _tell_changes(evidence or {})


def confirm(
    name: Name,
    as_json: Json = False,
    out: Out = EVIDENCE,
    time_limit: TimeLimit = 7200,
    steps: Steps = 3,
    source: From = None,
) -> None:
    """Run a tier's job on this card at full depth and write what came of it. Exit code 0 confirmed, 1 not.

    What is confirmed stays so: a run that does not show it is written beside, as NAME.not-confirmed.json.
    """
    need_the_probe()
    from ctxplan.tiers import find_tier
    from probes.files import check_writable, write_json

    tier = find_tier(name)
    file = out / f"{tier.name}.json"
    out.mkdir(parents=True, exist_ok=True)
    check_writable(file)
    document = _from_file(tier, source) if source else _from_card(tier, time_limit=time_limit, steps=steps)
    written = file if document["confirmed"] or not _is_confirmed(file) else file.with_suffix(".not-confirmed.json")
    write_json(written, document)
    if written != file:
        typer.echo(f"ctxplan: {file} says confirmed and was left as it is; this run is in {written}.", err=True)
    if as_json:
        print_json(document)
    else:
        _tell(document)
    raise typer.Exit(DONE if document["confirmed"] else DOES_NOT_FIT)


def _from_card(tier: Tier, *, time_limit: float, steps: int) -> dict[str, Any]:
    from probes.host import host_ram
    from probes.nvml import find_card
    from probes.tiers import Machine, confirm

    card = find_card()
    if card is None:
        leave("a tier is confirmed on a GPU, and this machine shows none")
    machine = Machine(gpu=card.name, total_bytes=card.total_bytes, host_ram_bytes=host_ram().usable_bytes)
    run = partial(run_one, time_limit=time_limit)
    command = f"ctxplan tier confirm {tier.name} --steps {steps}"
    return confirm(tier, run, machine, planner=Planner(offline=True), command=command, steps=steps)


def _is_confirmed(file: Path) -> bool:
    from app.jsontext import UnreadableJson, read_json

    try:
        found = read_json(file.read_bytes())
    except (OSError, UnreadableJson):
        return False
    return isinstance(found, dict) and found.get("confirmed") is True


def _from_file(tier: Tier, source: Path) -> dict[str, Any]:
    from probes.rows import read_confirmation, read_measurements
    from probes.tiers import from_measurements

    if not source.is_file():
        leave(f"{source}: there is no such file")
    # Where the file lies on this machine is nobody's business.
    shown = source.name if source.is_absolute() else source.as_posix()
    command: str | None = f"ctxplan tier confirm {tier.name} --from {shown}"
    if source.suffix == ".json":
        rows, command = read_confirmation(source)
    else:
        rows = read_measurements(source)
    return from_measurements(tier, rows, planner=Planner(offline=True), command=str(command))


def _state(item: dict[str, Any]) -> str:
    measured = item["measured"]
    if measured is None:
        return "no evidence yet"
    if item["confirmed"]:
        return f"confirmed on {measured['gpu']}, {measured['sequence_length']:,} tokens"
    return f"not confirmed ({measured['reason']})"


def _tell(document: dict[str, Any]) -> None:
    from app.cli.tier_text import run_lines

    if document["confirmed"]:
        typer.echo(f"Confirmed on {document['gpu']}: {document['sequence_length']:,} tokens.", err=True)
    else:
        typer.echo(f"Not confirmed: {document['reason']}.", err=True)
    for line in run_lines(document, Planner(offline=True)):
        typer.echo(f"  {line}", err=True)
    _tell_changes(document)


def _tell_changes(document: Mapping[str, Any]) -> None:
    for change in document.get("changes", ()):
        typer.echo(f"  changed {change['key']} from {change['from']} to {change['to']}: {change['why']}", err=True)
