"""Confirming a tier: its job at full depth on a real card, as an Unsloth user would run it, and the file that says so.

What the default does not fit (the card, or the host's RAM) is known from the estimate before anything is run; then the
smallest change that fits is made, and the file has both jobs. A failed try is written as well.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ctxplan import Planner
from ctxplan.tiers import Target, Tier, target_of
from estimator import DEVICES, CtxplanError, Device, Estimate, Job, find_device, job_to_json, parse_job
from probes.changes import SETTINGS, Change, smallest_changes
from probes.errors import PointError
from probes.measurement import Measurement
from probes.points import DEFAULT_STEPS, Point, Trainer

Measure = Callable[[Point], Measurement]

LEAST_STEPS = 2
TRAINER: Trainer = "sft"
"""As Unsloth's users run it; so batches are padding-free by default."""
TRIES = 2
OUT_OF_MEMORY = {"out_of_memory": "gpu", "host_out_of_memory": "host"}
NOT_THE_JOB = ("gpu", "num_hidden_layers", "sequence_length", "host_ram_bytes", "confidence", "versions")
"""Keys of a job that say where it ran and how it was planned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where a tier is tried: the GPU as the driver names it, and the host RAM that a run may use, None if unknown."""

    gpu: str
    total_bytes: int
    host_ram_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One job that was run, with what was changed and measured; or that was not, and why (``refused``)."""

    job: Job
    changes: tuple[Change, ...]
    measurements: tuple[Measurement, ...]
    refused: str | None = None

    @property
    def measurement(self) -> Measurement | None:
        """The last run, which is the one that counts."""
        return self.measurements[-1] if self.measurements else None


def confirm(
    tier: Tier,
    measure: Measure,
    machine: Machine,
    *,
    planner: Planner,
    command: str,
    steps: int = DEFAULT_STEPS,
) -> dict[str, Any]:
    """Run a tier's job on this machine, and give the document of `evidence/tiers`.

    Args:
        measure: runs a point in a fresh process. command: the line that this is run by.
        steps: optimizer steps, at least 2.

    Raises:
        CtxplanError: the job cannot be planned here.
    """
    target = target_of(tier, planner)
    default = _on_machine(tier, target.job, machine)
    found = smallest_changes(_with_ram(default, machine), planner)
    if found is None:
        estimate = planner.estimate(_with_ram(default, machine))
        tried = Try(job=default, changes=(), measurements=(), refused=_does_not_fit(estimate))
    else:
        tried = _run(Try(job=found[0], changes=found[1], measurements=()), measure, machine, planner, steps)
    return document(tier, target, default, tried, planner=planner, command=command)


def from_measurements(
    tier: Tier, measurements: Iterable[Measurement], *, planner: Planner, command: str
) -> dict[str, Any]:
    """The same document from runs that were made before: of exactly the tier's job, but for what may be changed.

    Raises:
        PointError: none of them is of that job at full depth.
    """
    target = target_of(tier, planner)
    alike = [(row, _changes_of(tier, target, row, planner)) for row in measurements]
    found = [(row, changes) for row, changes in alike if changes is not None]
    if not found:
        raise PointError(f"no measurement is of the job of {tier.name}", key="from", allowed="a run at full depth")
    best, changes = max(found, key=lambda one: (one[0].outcome == "ok", one[0].cap is None, one[0].sequence_length))
    ram = best.host.total_ram_bytes if best.host else None
    machine = Machine(
        gpu=best.gpu or find_device(target.job.gpu).name, total_bytes=best.total_bytes or 0, host_ram_bytes=ram
    )
    default = _on_machine(tier, target.job, machine)
    foreseen = smallest_changes(_with_ram(default, machine), planner)
    known = {change.key: change for change in foreseen[1]} if foreseen else {}
    tried = Try(
        job=replace(parse_job(best.job), host_ram_bytes=None),
        changes=tuple(known.get(change.key, change) for change in changes),
        measurements=(best,),
    )
    return document(tier, target, default, tried, planner=planner, command=command)


def document(tier: Tier, target: Target, default: Job, tried: Try, *, planner: Planner, command: str) -> dict[str, Any]:
    """What is written about a try: whether it confirms the tier, why not, and everything that was measured."""
    row = tried.measurement
    faults = [tried.refused] if tried.refused else faults_of(tier, target, row, planner)
    return {
        "name": tier.name,
        "claim": tier.claim,
        "source": tier.source,
        "claimed_sequence_length": target.length,
        "confirmed": not faults,
        "reason": "; ".join(fault for fault in faults if fault) or None,
        "emulated": bool(row and row.cap),
        "gpu": row.gpu if row else None,
        "num_hidden_layers": row.num_hidden_layers if row else None,
        "sequence_length": row.sequence_length if row else None,
        "execution_path": row.execution_path if row else None,
        "peak_allocated_bytes": row.peak_allocated_bytes if row else None,
        "peak_reserved_bytes": row.peak_reserved_bytes if row else None,
        "device_used_bytes": row.device_used_bytes if row else None,
        "host": row.host.model_dump(mode="json") if row and row.host else None,
        "steps": [
            {"loss": step.loss, "seconds": step.seconds, "peak_allocated_bytes": step.peak_allocated_bytes}
            for step in (row.steps if row else ())
        ],
        "default_job": job_to_json(default),
        "job": job_to_json(tried.job),
        "changes": [change.to_json() for change in tried.changes],
        "estimate": _estimated(tried, planner),
        "stack": dict(row.stack) if row else None,
        "measurements": [one.model_dump(mode="json") for one in tried.measurements],
        "command": command,
        "measured_at": row.measured_at if row else None,
    }


def faults_of(tier: Tier, target: Target, row: Measurement | None, planner: Planner) -> list[str]:
    """Why a run does not confirm a tier, a sentence each; none where it does."""
    if row is None:
        return ["nothing was run"]
    if row.outcome != "ok":
        return [f"{row.outcome}: {row.detail}" if row.detail else row.outcome]
    depth = planner.facts(target.job.model).architecture.num_hidden_layers
    finite = [step for step in row.steps if step.loss is not None and math.isfinite(step.loss)]
    ram = target.job.host_ram_bytes
    taken = row.host.peak_rss_bytes if row.host else None
    checks = {
        "it ran on the CPU": row.execution_path == "cpu",
        f"{row.gpu} stood in for a smaller card": row.cap is not None,
        f"{row.gpu} is none of the cards that the tier is about": not re.search(tier.card, row.gpu or ""),
        f"{row.num_hidden_layers} layers ran of {depth}": row.num_hidden_layers != depth,
        f"{row.sequence_length} tokens are fewer than claimed": row.sequence_length < target.length,
        f"{len(finite)} steps have a finite loss, of {len(row.steps)}": not LEAST_STEPS
        <= len(finite)
        == len(row.steps),
        f"{taken} B of host RAM are more than the {ram} B of the claim": ram is not None and (taken or 0) > ram,
    }
    return [fault for fault, holds in checks.items() if holds]


def _run(tried: Try, measure: Measure, machine: Machine, planner: Planner, steps: int) -> Try:
    """Run the job; where the memory ends all the same, once more with the smallest further change for that."""
    wanted = find_device(tried.job.gpu)
    capped = wanted.total_bytes if _card(machine).name != wanted.name else None
    for _ in range(TRIES):
        job = replace(tried.job, host_ram_bytes=None)
        row = measure(Point(job=job, trainer=TRAINER, steps=steps, cap_bytes=capped))
        tried = replace(tried, job=job, measurements=(*tried.measurements, row))
        limit = OUT_OF_MEMORY.get(row.outcome)
        further = smallest_changes(_with_ram(job, machine), planner, needed=limit) if limit else None
        if further is None or len(tried.measurements) == TRIES:
            return tried
        tried = replace(tried, job=further[0], changes=(*tried.changes, *further[1]))
    return tried


def _on_machine(tier: Tier, job: Job, machine: Machine) -> Job:
    """The tier's job on this machine's card, where that is one that the tier is about, or a smaller one; else on the
    card that the tier names, for which a larger one stands in."""
    here = _card(machine)
    if re.search(tier.card, machine.gpu) or here.total_bytes < find_device(job.gpu).total_bytes:
        return replace(job, gpu=here.name if here in DEVICES else {"name": here.name, "total_bytes": here.total_bytes})
    return job


def _card(machine: Machine) -> Device:
    """As in the catalogue, where it is there: NVML's total is some hundred MiB more than CUDA's."""
    try:
        return find_device(machine.gpu)
    except CtxplanError:
        return find_device({"name": machine.gpu, "total_bytes": machine.total_bytes})


def _with_ram(job: Job, machine: Machine) -> Job:
    """The job as planned for this host: with the RAM that is there, or that the claim allows, whichever is less."""
    known = [ram for ram in (job.host_ram_bytes, machine.host_ram_bytes) if ram is not None]
    return replace(job, host_ram_bytes=min(known, default=None))


def _does_not_fit(estimate: Estimate) -> str:
    host, ram = estimate.host_bytes.expected, estimate.job.host_ram_bytes
    if estimate.limited_by == "host":
        return f"not run: {host} B of host RAM are expected, of {ram} B, and no change of the job makes it fit"
    needed, room = estimate.needed_bytes.expected, estimate.room_bytes
    return f"not run: {needed} B are expected to be needed, the card leaves {room} B, and no change makes it fit"


def _changes_of(tier: Tier, target: Target, row: Measurement, planner: Planner) -> tuple[Change, ...] | None:
    """What a measurement's job changes in the tier's; None if it is another job, a twin's, or not as users run it."""
    asked, depth = parse_job(row.job), planner.facts(target.job.model).architecture.num_hidden_layers
    layers = {row.num_hidden_layers, asked.num_hidden_layers} - {None, depth}
    if layers or row.sequence_length < target.length or row.trainer != TRAINER or row.environment_asked:
        return None
    if asked.model != target.job.model:
        return None
    ran, wanted = (job_to_json(planner.estimate(replace(job, gpu=asked.gpu)).job) for job in (asked, target.job))
    length = "max_seq_length" if tier.below is not None else None
    changed = [key for key in ran if ran[key] != wanted[key] and key not in (*NOT_THE_JOB, length)]
    settings = {setting.key: setting for setting in SETTINGS}
    if any(key not in settings or ran[key] != settings[key].value for key in changed):
        return None
    values = ((key, getattr(target.job, key), getattr(asked, key)) for key in changed)
    return tuple(Change(key, default, value, settings[key].because) for key, default, value in values)


def _estimated(tried: Try, planner: Planner) -> Mapping[str, Any]:
    """The estimate of the job that ran, on the card that the tier names, beside what was measured."""
    estimate = planner.estimate(tried.job)
    row = tried.measurement
    peak = row.peak_allocated_bytes if row and row.outcome == "ok" else None
    return {
        **estimate.peak_allocated_bytes.to_json(),
        "verdict": estimate.verdict,
        "error": None if peak is None else estimate.peak_allocated_bytes.expected / peak - 1,
    }
