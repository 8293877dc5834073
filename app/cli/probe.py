"""``ctxplan probe``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.jobs import Json
from app.cli.output import BAD_INPUT, DOES_NOT_FIT, DONE, FAILED, leave, print_json
from app.cli.points import AnyGpu, Cache, DeviceIndex, KeepOutput, PointFile, is_same_file, read_points, read_sweep
from estimator.errors import CtxplanError

if TYPE_CHECKING:
    from app.cli.points import Groups
    from probes.measurement import Measurement
    from probes.supervise import Options

GIB = 2**30
DID_NOT_FIT = ("out_of_memory", "host_out_of_memory")
Out = Annotated[
    Path | None, typer.Option(metavar="FILE.jsonl", help="Add each measurement to this file.", show_default=False)
]
Sweep = Annotated[
    bool, typer.Option("--sweep", help="POINT.json has a point a line; those that --out has are not run again.")
]
Steps = Annotated[int | None, typer.Option(min=2, max=1000, help="Optimizer steps.", show_default=False)]
Trainer = Annotated[
    str | None, typer.Option(metavar="sft|loop", help="TRL's SFTTrainer, or a bare loop.", show_default=False)
]
CapGib = Annotated[
    float | None, typer.Option(min=1, help="Hold the card down to one of as many GiB.", show_default=False)
]
CapBytes = Annotated[int | None, typer.Option(min=GIB, help="The same, in bytes.", show_default=False)]


def register(application: typer.Typer) -> None:
    """Add this file's command."""
    application.command("probe")(probe)


def probe(
    point_file: PointFile,
    as_json: Json = False,
    out: Out = None,
    sweep: Sweep = False,
    time_limit: Annotated[float, typer.Option(min=1, metavar="SECONDS", help="For one point.")] = 1800,
    snapshot: Annotated[bool, typer.Option("--snapshot", help="Name the largest tensors alive at the peak.")] = False,
    steps: Steps = None,
    trainer: Trainer = None,
    cap_gib: CapGib = None,
    cap_bytes: CapBytes = None,
    device_index: DeviceIndex = None,
    any_gpu: AnyGpu = False,
    keep_output: KeepOutput = None,
    cache: Cache = None,
) -> None:
    """Measure a job on this machine's GPU: real steps in a process of their own, and what memory they took."""
    _check_usage(point_file, out, sweep=sweep, trainer=trainer, both_caps=cap_gib is not None and cap_bytes is not None)
    need_the_probe()
    from probes.nvml import find_card
    from probes.supervise import Options

    options = Options(
        time_limit_seconds=time_limit,
        snapshot=snapshot,
        device_index=device_index,
        any_gpu=any_gpu,
        keep_output=keep_output,
        cache_folder=cache,
    )
    cap = int(cap_gib * GIB) if cap_gib is not None else cap_bytes
    given = {"steps": steps, "trainer": trainer, "cap_bytes": cap}
    changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    card = find_card(device_index)
    read = read_sweep(point_file, card) if sweep else [read_points(point_file, card)]
    groups = [tuple(replace(point, **changes) for point in group) for group in read]
    if card is None:
        typer.echo("ctxplan: no GPU here: path cpu, GPU fields are null", err=True)
    measurements, fault = _measure(groups, out, options, resume=sweep)
    _answer(measurements, as_json=as_json, alone=not sweep and len(groups[0]) == 1)
    if fault is not None:
        leave(str(fault))
    raise typer.Exit(exit_code(_outcomes(groups, measurements, out if sweep else None)))


def exit_code(outcomes: Sequence[str]) -> int:
    """The code of the worst of them."""
    if any(outcome != "ok" and outcome not in DID_NOT_FIT for outcome in outcomes):
        return FAILED
    return DOES_NOT_FIT if any(outcome in DID_NOT_FIT for outcome in outcomes) else DONE


def need_the_probe() -> None:
    """Leave with what to install where the probe's packages are missing."""
    try:
        import probes.measurement  # noqa: F401
    except ImportError as error:
        leave(f"the probe is not installed ({error.name} is missing): pip install 'ctxplan[probe]'", code=BAD_INPUT)


def _check_usage(point_file: str, out: Path | None, *, sweep: bool, trainer: str | None, both_caps: bool) -> None:
    if both_caps:
        leave("--cap-gib and --cap-bytes say the same thing: give one of them")
    if sweep and out is None:
        leave("--sweep needs --out: finished points are known from there")
    if out is not None and is_same_file(point_file, out):
        leave(f"--out {out}: is the file of the points, which would be written over")
    if trainer not in (None, "sft", "loop"):
        leave(f"--trainer {trainer}: not one (allowed: sft, loop)")


def _measure(
    groups: Groups, out: Path | None, options: Options, *, resume: bool
) -> tuple[list[Measurement], CtxplanError | None]:
    """What was measured, and what went wrong after the first of it: hours of work are shown all the same."""
    from app.cli.measuring import Reporter
    from probes.errors import EvidenceError
    from probes.files import append_document, check_writable
    from probes.sweep import measure_group, sweep

    measurements: list[Measurement] = []
    faults: list[CtxplanError] = []
    if out is not None:
        check_writable(out, read_again=resume)
    with Reporter(sum(len(group) for group in groups)) as reporter:

        def keep(measurement: Measurement) -> None:
            measurements.append(measurement)
            reporter.measured(measurement)
            if out is None or resume:  # a sweep writes its file itself
                return
            try:
                append_document(out, measurement.model_dump(mode="json"))
            except EvidenceError as error:
                faults.append(error)

        try:
            if resume and out is not None:
                sweep(groups, out, options, on_progress=reporter.progress, on_measurement=keep)
            else:
                measure_group(groups[0], options, on_progress=reporter.progress, on_measurement=keep)
        except CtxplanError as error:
            if not measurements:
                raise
            faults.append(error)
    return measurements, faults[0] if faults else None


def _answer(measurements: Sequence[Measurement], *, as_json: bool, alone: bool) -> None:
    if not as_json:
        from app.cli.measuring import show_measurements

        show_measurements(measurements)
        return
    documents = [measurement.model_dump(mode="json") for measurement in measurements]
    print_json(documents[0] if alone else {"items": documents})


def _outcomes(groups: Groups, measurements: Sequence[Measurement], swept: Path | None) -> list[str]:
    """How all the points ended; those of a sweep that ended in an earlier run are in its file."""
    from probes.sweep import outcomes

    if swept is None:
        return [measurement.outcome for measurement in measurements]
    return outcomes(chain.from_iterable(groups), swept)
