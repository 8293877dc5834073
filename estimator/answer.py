"""The estimate of one job: resolve it, simulate it, bound it, and say what was assumed."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from estimator import rope
from estimator.architecture import Architecture
from estimator.calibration.bound import Evidence, weigh_evidence
from estimator.calibration.document import STRUCTURAL, Calibration
from estimator.calibration.reserved import least_reserved_bytes, modules_bytes, reserved_bytes, room_bytes
from estimator.checkpointing import host_slots, mode
from estimator.device import find_device
from estimator.embedding import embedding_leaves_after
from estimator.estimate import Bytes, Estimate, HostBytes, Verdict
from estimator.host import PROCESS_BYTES, HostPlan, host_plan
from estimator.job import Job
from estimator.phases import Simulation, simulate
from estimator.resolve import Run, Trainer, resolve
from estimator.sizes import Sizes, sizes_of
from estimator.statics import Statics, statics_of

EVEN_ODDS = 0.5
"""The least confidence: the bound of it is what is expected."""

HOST_MARGIN = 0.05
"""Host RAM is expected within 5 %: the process itself differs between machines."""


class Prepared(NamedTuple):
    """A run and everything of it that does not depend on its length."""

    run: Run
    statics: Statics


class Outcome(NamedTuple):
    """One simulated length, with its totals and its verdict.

    Attributes:
        needed, room: what torch must reserve for the peak at the least, and what the card leaves it.
        expected_room, safe_room: bytes left by what is expected, and by the bound, on the device or the host,
            whichever is tighter; positive exactly where the verdict is not does_not_fit, and where it is fits.
    """

    z: Sizes
    simulation: Simulation
    host: HostPlan
    evidence: Evidence
    allocated: Bytes
    reserved: Bytes
    device: Bytes
    needed: Bytes
    room: int
    verdict: Verdict
    limited_by: str
    expected_room: int
    safe_room: int


def estimate(
    job: Job, architecture: Architecture, calibration: Calibration = STRUCTURAL, *, trainer: Trainer | None = None
) -> Estimate:
    """What a job needs on its GPU and its host, and whether it fits.

    Args:
        job: as written; nulls are filled in. architecture: the model's shape (`estimator.families.read_config`).
        calibration: what was fitted to measurements; by default nothing, and the structure stands alone.
        trainer: what runs the steps; None for ``SFTTrainer`` with Unsloth, for a bare loop with plain transformers.

    Raises:
        CtxplanError: the job contradicts itself, the model or the GPU cannot be planned.
    """
    prepared = prepare(job, architecture, calibration, trainer=trainer)
    resolved = prepared.run.job
    return describe(
        prepared, outcome_at(prepared, resolved.max_seq_length, resolved.sequence_length or resolved.max_seq_length)
    )


def prepare(
    job: Job, architecture: Architecture, calibration: Calibration = STRUCTURAL, *, trainer: Trainer | None = None
) -> Prepared:
    """Resolve a job and compute its static bytes."""
    run = resolve(job, architecture, find_device(job.gpu), trainer=trainer, calibration=calibration)
    return Prepared(run, statics_of(run))


def outcome_at(prepared: Prepared, max_seq_length: int, length: int) -> Outcome:
    """Simulate one length."""
    run, statics = prepared
    job = run.job
    z = sizes_of(
        run.architecture, max_seq_length=max_seq_length, sequences=job.per_device_train_batch_size, length=length
    )
    simulation = simulate(run, statics, z)
    evidence = weigh_evidence(run, z)
    expected = simulation.peak.allocated_bytes
    resting = simulation.resting_bytes
    bound = job.confidence > EVEN_ODDS
    allocated = Bytes(expected, expected + int(expected * evidence.margin))
    host = _host(run, statics, z, simulation)
    unseen = statics.optimizer_device_bytes + host.page_table_bytes
    reserved = Bytes(
        reserved_bytes(run, allocated.expected, resting, beside_bytes=unseen),
        max(reserved_bytes(run, allocated.upper, resting, upper=bound, beside_bytes=unseen), allocated.upper),
    )
    beside = run.device.context_bytes + unseen
    modules, more_modules = modules_bytes(run), modules_bytes(run, upper=True)
    needed = _needed(run, allocated, resting, bound=bound)
    room = room_bytes(run) - unseen
    most = max(run.device.total_bytes, needed.upper + beside + modules)
    device = Bytes(reserved.expected + beside + modules, min(reserved.upper + beside + more_modules, most))
    rooms = _rooms(run, needed, room, host)
    verdict, limited_by = _verdict(rooms)
    expected_room, safe_room = min(rooms[0], rooms[2]), min(rooms)
    return Outcome(
        z=z,
        simulation=simulation,
        host=host,
        evidence=evidence,
        allocated=allocated,
        reserved=reserved,
        device=device,
        needed=needed,
        room=room,
        verdict=verdict,
        limited_by=limited_by,
        expected_room=expected_room,
        safe_room=safe_room,
    )


def describe(prepared: Prepared, outcome: Outcome) -> Estimate:
    """The outcome as the contract's estimate."""
    run, statics = prepared
    simulation, host = outcome.simulation, outcome.host
    described = rope.describe_rope(run.architecture.rope, outcome.z.max_seq_length, extends=run.own_forward)
    return Estimate(
        peak_allocated_bytes=outcome.allocated,
        peak_reserved_bytes=outcome.reserved,
        peak_device_bytes=outcome.device,
        host_bytes=HostBytes(host.total_bytes, host.pinned_bytes, host.pageable_bytes),
        usable_bytes=run.device.usable_bytes,
        needed_bytes=outcome.needed,
        room_bytes=outcome.room,
        phases=simulation.peaks,
        peak=simulation.peak,
        execution_path=run.path,
        verdict=outcome.verdict,
        confidence=run.job.confidence,
        limited_by=outcome.limited_by,
        calibration=run.calibration.named(),
        evidence="inside" if outcome.evidence.inside else "outside",
        rope=described,
        regime=_regime(run, statics, outcome),
        assumptions=_assumptions(run, statics, outcome, described["note"]),
        job=_job_at(run.job, outcome.z),
    )


def _job_at(job: Job, z: Sizes) -> Job:
    """The resolved job at the length that was simulated."""
    if (job.max_seq_length, job.sequence_length) == (z.max_seq_length, z.length):
        return job
    return replace(job, max_seq_length=z.max_seq_length, sequence_length=z.length)


def _host(run: Run, statics: Statics, z: Sizes, simulation: Simulation) -> HostPlan:
    moved = statics.weights.embedding if simulation.regime.embedding_offloaded else 0
    return host_plan(
        slots=host_slots(run, simulation.regime),
        slot_bytes=z.u,
        embedding_bytes=moved,
        pin=bool(run.job.pin_host_memory),
        host_ram_bytes=run.job.host_ram_bytes,
        process_bytes=run.calibration.process.get(run.trainer, PROCESS_BYTES),
    )


def _needed(run: Run, allocated: Bytes, resting: int, *, bound: bool) -> Bytes:
    """What torch must be able to reserve for the peak."""
    upper = least_reserved_bytes(run, allocated.upper, resting, upper=bound)
    return Bytes(least_reserved_bytes(run, allocated.expected, resting), max(upper, allocated.upper))


def _rooms(run: Run, needed: Bytes, room: int, host: HostPlan) -> tuple[int, int, int, int]:
    """Room on the device (expected, upper) and on the host (expected, upper), bytes, plus 1: positive where it fits."""
    expected, upper = room + 1 - needed.expected, room + 1 - needed.upper
    ram = run.job.host_ram_bytes
    if ram is None:
        return expected, upper, room + 1, room + 1
    return expected, upper, ram + 1 - host.total_bytes, ram + 1 - int(host.total_bytes * (1 + HOST_MARGIN))


def _verdict(rooms: tuple[int, int, int, int]) -> tuple[Verdict, str]:
    expected, upper, host, host_upper = rooms
    if min(expected, host) <= 0:
        return "does_not_fit", "gpu" if expected <= 0 else "host"
    if min(upper, host_upper) <= 0:
        return "uncertain", "gpu" if upper <= 0 else "host"
    return "fits", "gpu"


def _regime(run: Run, statics: Statics, outcome: Outcome) -> dict[str, object]:
    simulation = outcome.simulation
    plan = simulation.loss_plan
    return {
        "use_gradient_checkpointing": mode(run, outcome.z),
        "inputs_offloaded": simulation.regime.offloads,
        "double_buffer": simulation.regime.double_buffer,
        "embedding_offloaded": simulation.regime.embedding_offloaded,
        "embedding_leaves_after": embedding_leaves_after(run, statics, outcome.z.max_seq_length),
        "loss": plan.kind if plan and run.path != "transformers" else "full_logits" if plan else None,
        "loss_rows": plan.rows if plan and run.path != "transformers" else None,
        "pinned_host_buffers": outcome.host.pinned_slots,
    }


def _assumptions(run: Run, statics: Statics, outcome: Outcome, rope_note: str) -> tuple[str, ...]:
    versions = run.job.versions
    stack = ", ".join(f"{name} {versions[name]}" for name in ("torch", "transformers", "unsloth") if versions.get(name))
    said = [*run.assumptions, *run.device.assumptions, f"stack: {stack}", f"RoPE: {rope_note}"]
    said += [f"outside the measured range: {reason}" for reason in outcome.evidence.reasons]
    if run.path in ("block_compiled", "generated"):
        said.append("the first step compiles, and tries the layer once more: its own peak can differ")
    if run.job.packing or (run.job.padding_free and run.job.per_device_train_batch_size > 1):
        said.append(
            "a flattened batch is planned as documents of sequence_length tokens; many short ones need a little more"
        )
    if run.job.mode == "generate" and outcome.z.length + run.job.max_new_tokens > outcome.z.max_seq_length:
        said.append("prompt and new tokens exceed max_seq_length: the cache is planned for all of them")
    if statics.optimizer_device_bytes:
        said.append("paged optimizer state is managed memory: counted on the device, not in allocated or reserved")
    if run.architecture.is_moe:
        said.append("routing is taken as even over the experts")
    if run.storage == "int8":
        said.append(
            "bitsandbytes' 8-bit product takes more where inputs hold values above 6: how many do depends on the data"
        )
    if run.job.framework == "transformers":
        said.append(
            "the transformers path is a bare loop with full logits; "
            "a trainer that chunks its loss, as TRL's SFTTrainer does, needs less"
        )
    if outcome.simulation.regime.embedding_offloaded:
        said.append("the input embedding is on the host: Unsloth moves it where a training step would be tight")
    return tuple(said)
