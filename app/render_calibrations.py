"""Calibrations for a person: what one is from, how two answer the same points, what drifted, what to measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.text import Text

from app.render import table_of

SHORT = len("sha256-") + 12


def short(id: str) -> str:
    """An id as it is shown: its first twelve digits, which may be typed back."""
    return id[7:SHORT] if id.startswith("sha256-") else id


def render_list(items: Iterable[Mapping[str, Any]]) -> list[RenderableType]:
    """Every calibration in a line, the active one marked."""
    table = table_of("", "calibration", "points", "cards", "stored", numbers=(2,))
    for item in items:
        cards = item["fault"] or ", ".join(item["gpus"])
        stored = "shipped" if item["shipped"] else (item["stored_at"] or "")
        points = "" if item["points"] is None else f"{item['points']:,}"
        table.add_row("*" if item["active"] else "", short(item["id"]), points, cards, stored)
    return [table]


def render_summary(found: Mapping[str, Any]) -> list[RenderableType]:
    """What a calibration is from, its coefficients, and its bounds."""
    return [
        Text(f"Calibration {found['id']}"),
        Text(f"From {found['points']:,} points on {', '.join(found['gpus'])}; {_versions(found['versions'])}."),
        *[Text(_covered(path, one)) for path, one in found["measured"].items()],
        *_corrections(found["corrections"]),
        *render_bounds(found["bounds"]),
    ]


def render_bounds(bounds: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    """How far above the expected peak the bound of each stratum lies."""
    if not bounds:
        return [Text("No residuals: the bounds are those of the structure.")]
    table = table_of("stratum", "points", "95 %", "99 %", "largest", numbers=(1, 2, 3, 4))
    points = {one["stratum"]: one["points"] for one in bounds}
    for one in bounds:
        if points.get(one["stratum"].rpartition("/")[0]) == one["points"]:
            continue  # the same points as the coarser stratum's, and so the same bound
        margins = one["margins"]
        table.add_row(
            one["stratum"],
            f"{one['points']:,}",
            *("too few" if margins[key] is None else _percent(margins[key]) for key in ("0.95", "0.99")),
            _percent(one["largest"]),
        )
    return [Text("\nBound over the expected peak, from families that the fit had not seen:"), table]


def render_errors(groups: Iterable[Mapping[str, Any]], before: str, after: str) -> list[RenderableType]:
    """The errors of two calibrations on the same points, side by side."""
    listed = list(groups)
    if not listed:
        return [Text("\nNo kept measurement can be judged: the errors are not compared.")]
    names = ("median\nbefore", "after", "worst\nbefore", "after", "in bound\nbefore", "after")
    table = table_of("path and kind", "points", *names, numbers=tuple(range(1, 8)))
    for one in listed:
        old, new = one["before"], one["after"]
        table.add_row(
            one["name"],
            f"{one['points']:,}",
            f"{old['middle']:.2%}",
            f"{new['middle']:.2%}",
            _percent(old["worst"]),
            _percent(new["worst"]),
            f"{old['covered']:.0%}",
            f"{new['covered']:.0%}",
            style="bold" if one["name"] == "together" else None,
        )
    text = f"\nErrors of the allocated peak, {short(before)} before and {short(after)} after (bound at 95 %):"
    return [Text(text), table]


def render_differences(found: Mapping[str, Any]) -> list[RenderableType]:
    """What differs in two documents."""
    points, gpus = found["points"], found["gpus"]
    lines: list[RenderableType] = [
        Text(f"Points: {points[0]:,} and {points[1]:,}, {found['shared_points']:,} of them the same."),
        Text(f"Cards: {', '.join(gpus[0]) or 'none'} and {', '.join(gpus[1]) or 'none'}."),
    ]
    for what in ("versions", "corrections", "residuals"):
        for key, (old, new) in found[what].items():
            lines.append(Text(f"  {what[:-1]} {key}: {_plain(old)} -> {_plain(new)}"))
    return lines


def render_drift(found: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    """What lies beyond the bound, the worst first."""
    lines: list[RenderableType] = []
    for one in found:
        changed = ", ".join(f"{c['package']} {', '.join(c['old']) or 'none'} -> {c['new']}" for c in one["changed"])
        text = (
            f"{one['stratum']}: {len(one['beyond'])} of {one['points']} points {one['side']} the bound, the worst "
            f"{_percent(one['error'])} where {one['bound']:.2%} are allowed; "
            f"{'changed: ' + changed if changed else 'on the versions that were fitted'}"
        )
        lines.append(Text.assemble(("Drift ", "bold red"), text))
    return lines


def render_design(found: Mapping[str, Any]) -> list[RenderableType]:
    """The points to measure, in the order of their worth."""
    table = table_of("layers", "checkpointing", "batch", "tokens", "s", "error after", numbers=(0, 3, 4, 5))
    for one in found["choices"]:
        layers = one["num_hidden_layers"]
        table.add_row(
            "all" if layers is None else str(layers),
            str(one["use_gradient_checkpointing"]).lower(),
            one["batch"],
            f"{one['sequence_length']:,}",
            f"{one['seconds']:.0f}",
            f"{one['standard_error']:.2%}",
        )
    end = "enough" if found["reached"] else "not enough: no other twin fits the card and the time"
    return [
        Text(
            f"Standard error of the full depth's peak: {found['before']:.2%} before, {found['after']:.2%} after, {end}."
        ),
        table,
        Text(f"About {found['seconds']:.0f} s on an H100; a process may take half as long or twice as long."),
    ]


def _covered(path: str, one: Mapping[str, Any]) -> str:
    tokens = one["tokens"]
    return f"  {path}: {', '.join(one['families'])}; {tokens[0]:,} to {tokens[1]:,} tokens"


def _corrections(found: Mapping[str, Mapping[str, float]]) -> list[RenderableType]:
    if not found:
        return [Text("No coefficients: the structure alone says as much of these points.")]
    lines = [
        f"  {key}: " + ", ".join(f"{m:+.3f} {width}" for width, m in widths.items()) for key, widths in found.items()
    ]
    return [Text("\nTensors alive beyond the structure, in widths:"), *(Text(line) for line in lines)]


def _versions(versions: Mapping[str, Sequence[str]]) -> str:
    return ", ".join(f"{name} {'/'.join(found)}" for name, found in versions.items()) or "versions unknown"


def _plain(value: Any) -> str:
    return "none" if value is None else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _percent(value: float) -> str:
    return f"{value:+.2%}"
