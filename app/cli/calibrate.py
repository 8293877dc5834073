"""``ctxplan calibrate``: calibrations of one's own, which of them answers, and whether it still holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli import campaign, design
from app.cli.fallback import FallbackGroup
from app.cli.jobs import Json
from app.cli.output import DONE, UNCERTAIN, leave, print_json
from app.cli.output import show as show_to_person
from ctxplan.calibration_keeping import SHIPPED, Activation, StoreUnavailable
from ctxplan.calibration_store import FileStore, timestamp
from ctxplan.calibration_summary import listed, summary

if TYPE_CHECKING:
    from estimator.calibration.document import Calibration

Files = Annotated[
    list[Path], typer.Argument(metavar="MEASUREMENTS.jsonl...", show_default=False, help="What ctxplan probe wrote.")
]
Id = Annotated[str, typer.Argument(metavar="ID", show_default=False, help="The first digits of an id, or shipped.")]
MaybeId = Annotated[
    str | None, typer.Argument(metavar="[ID]", show_default=False, help="By default the active calibration.")
]
LeaveOut = Annotated[
    list[str] | None,
    typer.Option("--leave-out", metavar="FAMILY", show_default=False, help="Keep this model_type for judging."),
]
WithShipped = Annotated[
    bool, typer.Option("--with-shipped", help="Fit the rows of the shipped calibration too (in a checkout).")
]
Activate = Annotated[bool, typer.Option("--activate", help="Answer with it from now on.")]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="What the history is to say.")]
MoreMeasurements = Annotated[
    list[Path] | None,
    typer.Option("--measurements", metavar="FILE.jsonl", show_default=False, help="Look at these rows too."),
]


def register(application: typer.Typer) -> None:
    """Add this file's commands."""
    group = typer.Typer(
        cls=FallbackGroup,
        help="Fit calibrations to measurements, choose the one that answers, and see whether it still holds. "
        "ctxplan calibrate MEASUREMENTS.jsonl... is short for ctxplan calibrate fit.",
        no_args_is_help=True,
    )
    for name, command in (
        ("fit", fit),
        ("list", list_calibrations),
        ("show", show),
        ("compare", compare),
        ("activate", activate),
        ("rollback", rollback),
        ("status", status),
    ):
        group.command(name)(command)
    design.register(group)
    campaign.register(group)
    application.add_typer(group, name="calibrate")


def fit(
    files: Files,
    leave_out: LeaveOut = None,
    with_shipped: WithShipped = False,
    activate: Activate = False,
    why: Why = "fitted on the command line",
    as_json: Json = False,
) -> None:
    """Fit a calibration to measurements, to exactly these, and keep it."""
    need_the_fit()
    from probes.fitting.compare import errors_of, observed
    from probes.fitting.own import fit_own
    from probes.fitting.rows import committed_rows, documents_of, read_files

    store = FileStore()
    rows = [*read_files(files), *(committed_rows() if with_shipped else [])]
    before = _active_or_shipped(store)
    after = fit_own(rows, leave_out=leave_out or ())
    groups = [group.to_json() for group in errors_of(observed(rows), before, after)]
    new = store.put(after)
    store.keep_measurements(after.id, documents_of(rows))
    if activate:
        store.activate(after.id, why=why, at=datetime.now(UTC))
    answer = {
        "calibration": summary(after),
        "new": new,
        "active": activate or store.active_id() == after.id,
        "file": str(store.file_of(after.id)),
        "measurements": {"read": len(rows), "points": after.points},
        "before": before.named(),
        "errors": groups,
    }
    if as_json:
        print_json(answer)
    else:
        _tell_fit(answer)


def list_calibrations(as_json: Json = False) -> None:
    """List the calibrations that are kept here, the active one marked."""
    store = FileStore()
    items = listed(store.list(), store.active_id())
    if as_json:
        print_json({"items": items, "next": None})
        return
    from app.render_calibrations import render_list

    show_to_person(lambda _: render_list(items))


def show(id: MaybeId = None, as_json: Json = False) -> None:
    """Show a calibration: what it is from, its coefficients and its bounds."""
    store = FileStore()
    found = summary(store.active() if id is None else store.get(id))
    if as_json:
        print_json(found)
        return
    from app.render_calibrations import render_summary

    show_to_person(lambda _: render_summary(found))


def compare(
    first: Id,
    second: Id,
    measurements: MoreMeasurements = None,
    as_json: Json = False,
) -> None:
    """Compare two calibrations: what differs in them, and how each answers the rows that are kept of both."""
    need_the_fit()
    from probes.fitting.compare import differences, errors_of, observed
    from probes.fitting.rows import read_files

    store = FileStore()
    before, after = store.get(first), store.get(second)
    rows = read_files([*store.measurement_files(before.id, after.id), *(measurements or [])])
    answer = {
        "before": before.named(),
        "after": after.named(),
        "differences": differences(before, after),
        "errors": [group.to_json() for group in errors_of(observed(rows), before, after)],
    }
    if as_json:
        print_json(answer)
        return
    from app.render_calibrations import render_differences, render_errors

    show_to_person(
        lambda _: [
            *render_differences(differences(before, after)),
            *render_errors([g for g in answer["errors"] if isinstance(g, Mapping)], before.id, after.id),
        ]
    )


def activate(id: Id, why: Why = "activated on the command line", as_json: Json = False) -> None:
    """Answer with a calibration from now on."""
    store = FileStore()
    _tell_active(store, store.activate(id, why=why, at=datetime.now(UTC)), as_json=as_json)


def rollback(why: Why = "rolled back on the command line", as_json: Json = False) -> None:
    """Answer with the calibration that was active before."""
    store = FileStore()
    _tell_active(store, store.rollback(why=why, at=datetime.now(UTC)), as_json=as_json)


def status(measurements: MoreMeasurements = None, as_json: Json = False) -> None:
    """Show the active calibration, its age and bounds, and what was measured beyond them. Exit code 3 on drift."""
    store, now = FileStore(), datetime.now(UTC)
    calibration = store.active()
    files = [*store.measurement_files(), *(measurements or [])]
    found = _drift(store, calibration, files, now) if files else []
    history = store.history()
    stored_at = store.stored_at(calibration.id)
    answer = {
        "calibration": calibration.named(),
        "shipped": store.active_id() == SHIPPED,
        "activation": history[-1].to_json() if history else None,
        "stored_at": timestamp(stored_at) if stored_at else None,
        "age_seconds": int((now - stored_at).total_seconds()) if stored_at else None,
        "bounds": summary(calibration)["bounds"],
        "drift": found,
    }
    if as_json:
        print_json(answer)
    else:
        _tell_status(answer)
    raise typer.Exit(UNCERTAIN if found else DONE)


def need_the_fit() -> None:
    """Leave with what to install where the fit's packages are missing."""
    try:
        import probes.fitting.fit  # noqa: F401
    except ImportError as error:
        leave(f"fitting is not installed ({error.name} is missing): pip install 'ctxplan[fit]'")


def _active_or_shipped(store: FileStore) -> Calibration:
    """What a new calibration is compared with: to fit another is how a broken one is got rid of."""
    from ctxplan.calibrations import shipped
    from estimator.errors import CtxplanError

    try:
        return store.active()
    except CtxplanError as error:
        typer.echo(f"ctxplan: compared with the shipped calibration: {error}", err=True)
        return shipped()


def _drift(store: FileStore, calibration: Calibration, files: Sequence[Path], now: datetime) -> list[dict[str, Any]]:
    """What lies beyond the calibration's bound; noted in the store where that can be written."""
    need_the_fit()
    from probes.fitting.drift import find_drift
    from probes.fitting.rows import read_files

    found = [one.to_json() for one in find_drift(read_files(files), calibration)]
    try:
        store.note_drift({"at": timestamp(now), **one} for one in found)
    except StoreUnavailable as error:
        typer.echo(f"ctxplan: the drift is not noted: {error}", err=True)
    return found


def _tell_fit(answer: dict[str, Any]) -> None:
    from app.render_calibrations import render_errors, render_summary, short

    found = answer["calibration"]
    counts = answer["measurements"]
    kept = "Kept" if answer["new"] else "Was here already"
    use = "It is active." if answer["active"] else f"Use it: ctxplan calibrate activate {short(found['id'])}"
    show_to_person(
        lambda _: [
            *render_summary(found),
            *render_errors(answer["errors"], answer["before"]["id"], found["id"]),
        ]
    )
    typer.echo(
        f"\nThe errors after are those of a fit on its own points; the bound is not made of them.\n"
        f"{counts['points']:,} points of {counts['read']:,} rows. {kept}: {answer['file']}\n{use}",
        err=True,
    )


def _tell_active(store: FileStore, activation: Activation, *, as_json: bool) -> None:
    named = store.get(activation.id).named()
    if as_json:
        print_json({"calibration": named, "activation": activation.to_json()})
    else:
        shipped = ", the shipped one" if activation.id == SHIPPED else ""
        typer.echo(f"Active: {named['id']}{shipped} ({named['points']:,} points).", err=True)


def _tell_status(answer: dict[str, Any]) -> None:
    from app.render_calibrations import render_bounds, render_drift

    activation = answer["activation"]
    since = f", active since {activation['at']} ({activation['why']})" if activation else ""
    days = "" if answer["age_seconds"] is None else f"; {answer['age_seconds'] / 86400:.1f} days old"
    shipped = "shipped, " if answer["shipped"] else ""
    points = answer["calibration"]["points"]
    typer.echo(f"Active: {answer['calibration']['id']} ({shipped}{points:,} points{days}){since}.", err=True)
    show_to_person(lambda _: [*render_bounds(answer["bounds"]), *render_drift(answer["drift"])])
    if not answer["drift"]:
        typer.echo("\nNo drift: no measurement that was looked at is beyond the bound at 99 %.", err=True)
