"""Measures points in a fresh process that this one watches. Nothing here imports torch, transformers or Unsloth."""

from __future__ import annotations

import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from probes.ballast import Ballast, hold
from probes.checks import check_checkpoint, check_installed, check_together, located, refusal
from probes.document import Setting, compose
from probes.environment import child_environment, noted
from probes.errors import ProbeUnavailable
from probes.files import reason_of
from probes.following import Following, Hooks
from probes.measurement import Measurement
from probes.nvml import Card, CardWatch, find_card
from probes.planned import run_of
from probes.points import Point
from probes.process import LeashedProcess, new_workdir
from probes.protocol import OUTPUT_FILE, REQUEST_FILE, Progress, Request
from probes.watch import follow


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How points are measured.

    Attributes:
        time_limit_seconds: of one point; the clock starts again with each that is finished.
        snapshot: whether to name the tensors alive at the peak (torch's allocator records its history then).
        device_index: which of the visible GPUs; None: the first. The process sees that one alone.
        any_gpu: measure although the card is of another kind than the job's.
        keep_output: a folder for what the process wrote; None keeps none of it.
        cache_folder: where compiled kernels are kept from one process to the next, so that a sweep compiles once;
            None: each process compiles its own.
        child: the command that is measured; it gets the request's path as its last argument.
    """

    time_limit_seconds: float = 1800
    snapshot: bool = False
    device_index: int | None = None
    any_gpu: bool = False
    keep_output: Path | None = None
    cache_folder: Path | None = None
    child: tuple[str, ...] = (sys.executable, "-m", "probes.child")


DEFAULTS = Options()


def utc_now() -> datetime:
    return datetime.now(UTC)


def measure(
    points: Sequence[Point],
    options: Options = DEFAULTS,
    *,
    on_progress: Callable[[Progress], None] = lambda _: None,
    on_measurement: Callable[[Measurement], None] = lambda _: None,
    now: Callable[[], datetime] = utc_now,
) -> list[Measurement]:
    """Run the points in one fresh process, in their order.

    Returns a measurement of each point that was tried; those after one that ended the process are left out.
    ``on_measurement`` gets each as soon as it exists, whatever comes after it.

    Raises:
        PointError: points that cannot share a process; a checkpoint without a tokenizer. JobError, UnknownModel,
        UnknownDevice: a job that cannot be planned, and so not be run with what it leaves to the stack.
        ProbeUnavailable: this machine lacks a package, a GPU to cap or room on its disk.
    """
    check_together(points)
    for point in points:
        run_of(point)
    check_checkpoint(points[0])
    check_installed(points)
    for folder in (options.keep_output, options.cache_folder):
        _make_folder(folder)
    hooks = Hooks(on_progress=on_progress, on_measurement=on_measurement, now=now)
    card = find_card(options.device_index)
    refused = refusal(points, card, any_gpu=options.any_gpu) if card else None
    if refused is None:
        with _ballast(points[0], options) as ballast:
            return _run(points, options, card, ballast, hooks)
    setting = _setting(card)
    measurements = [compose(point, refused, setting, now=now()) for point in points]
    for measurement in measurements:
        on_measurement(measurement)
    return measurements


def _run(
    points: Sequence[Point], options: Options, card: Card | None, ballast: Ballast | None, hooks: Hooks
) -> list[Measurement]:
    workdir = new_workdir()
    environment = child_environment(
        points[0],
        workdir,
        uuid=card.uuid if card else None,
        cache_folder=options.cache_folder.resolve() if options.cache_folder else None,
    )
    cap = ballast.to_json() if ballast else None
    # It runs in its work folder, where a relative path means nothing; its measurement has the point as asked.
    found = [located(point) for point in points]
    request = Request(points=found, workdir=str(workdir), snapshot=options.snapshot, cap=cap)
    following = Following(
        points=points,
        setting=_setting(card, cap=cap, environment=noted(environment)),
        ballast=ballast,
        hooks=hooks,
    )
    argv = [*options.child, str(workdir / REQUEST_FILE)]
    files = {REQUEST_FILE: json.dumps(request.to_json())}
    with (
        CardWatch(card) as watch,
        LeashedProcess(argv, workdir=workdir, environment=environment, files=files) as process,
        _kept_output(options.keep_output, process, points[0]),
    ):
        follow(process, following, watch, time_limit_seconds=options.time_limit_seconds)
    return following.measurements


def _setting(
    card: Card | None, *, cap: dict[str, object] | None = None, environment: dict[str, str] | None = None
) -> Setting:
    name, driver = (card.name, card.driver) if card else (None, None)
    return Setting(gpu=name, driver=driver, cap=cap, environment=environment or {})


def _make_folder(folder: Path | None) -> None:
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ProbeUnavailable(f"{folder}: cannot be made: {reason_of(error)}") from None


@contextmanager
def _ballast(point: Point, options: Options) -> Iterator[Ballast | None]:
    if point.cap_bytes is None:
        yield None
        return
    card = find_card(options.device_index)  # again: it is idle only now that this was made sure of
    if card is None:
        raise ProbeUnavailable("cap_bytes holds a GPU down to a smaller one, and this machine has none")
    with hold(point.cap_bytes, card) as ballast:
        yield ballast


@contextmanager
def _kept_output(folder: Path | None, process: LeashedProcess, point: Point) -> Iterator[None]:
    try:
        yield
    finally:
        if folder is not None:
            try:
                shutil.copyfile(process.workdir / OUTPUT_FILE, folder / f"{point.digest[:16]}.txt")
            except OSError as error:  # the measurements are worth more than the output
                logging.getLogger(__name__).warning("%s: the output is not kept: %s", folder, reason_of(error))
