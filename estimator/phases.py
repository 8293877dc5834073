"""One run on one device: what Unsloth decides from the free memory, and the peak of every phase.

The decisions are made in the order in which the run makes them: where the embedding lives (after the load), how the
loss is cut (at the first loss), whether a second staging buffer is admitted (after the first step). Each reads
memory that the ones before it decided, so the estimate is the fixed point that the run itself reaches.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

from estimator import attention, base, block_compiled, eager, evaluation, generated, kv_cache, stock
from estimator.calibration.corrections import corrected
from estimator.calibration.reserved import reserved_bytes, room_bytes, with_fragmentation
from estimator.checkpointing import DOUBLE_BUFFER_HEADROOM_BYTES, LAST_INPUT, Regime, offloads_inputs, staging
from estimator.embedding import embedding_leaves_after, embedding_offloaded
from estimator.estimate import Phase
from estimator.ledger import NAME, Instant, LiveSet, total
from estimator.loss import LossPlan, plan_loss
from estimator.resolve import Run
from estimator.sizes import Sizes
from estimator.statics import Statics

PATHS: dict[str, ModuleType] = {
    "eager": eager,
    "block_compiled": block_compiled,
    "generated": generated,
    "transformers": stock,
}


Sized = tuple[int, Instant]
"""An instant after the sum of its rows, bytes."""


class Simulation(NamedTuple):
    """The peak of every phase, in the order of a run, and the regime that was reached.

    Attributes:
        peaks: (phase, instant, bytes, terms) of the widest instant of each phase. rows of the peak sum to its bytes.
        resting_bytes: the model and what trains, as they lie between the steps, optimizer state apart.
        first_step_bytes: the largest sum of the first step, before optimizer state and second buffer exist.
        double_buffer_room_bytes: driver-free memory after the first step, beyond what admits the second staging buffer.
    """

    peaks: tuple[Phase, ...]
    regime: Regime
    loss_plan: LossPlan | None
    resting_bytes: int
    first_step_bytes: int
    double_buffer_room_bytes: int

    @property
    def peak(self) -> Phase:
        return max(self.peaks, key=lambda phase: phase.allocated_bytes)


def simulate(run: Run, statics: Statics, z: Sizes) -> Simulation:
    """Run one step after another, on paper."""
    if run.job.mode == "generate":
        return _generate(run, statics, z)
    path = PATHS[run.path]
    moved = embedding_offloaded(run, statics, z.max_seq_length)
    resident = base.resident(run, statics, z, embedding_offloaded=moved)
    steady = Regime(offloads=offloads_inputs(run, z), double_buffer=False, embedding_offloaded=moved, steady=True)
    common = [*resident, *_during_steps(run, statics, z)]
    under_first = total(common) + total(staging(run, z, steady._replace(steady=False)))
    sized = _sized(corrected(run, z, path.forward(run, statics, z, steady)))
    resting = total(resident)
    plan = _plan_loss(run, z, under_first + _first_step(sized, z), resting)
    sized += _sized(corrected(run, z, path.loss_instants(run, statics, z, steady, plan)))
    sized += _sized(corrected(run, z, path.backward(run, statics, z, steady)))
    first_step = under_first + _first_step(sized, z)
    room = room_bytes(run) - with_fragmentation(run, first_step, resting) - DOUBLE_BUFFER_HEADROOM_BYTES
    steady = steady._replace(double_buffer=steady.offloads and room > 0)
    always = [*common, *base.optimizer_state(run, statics), *staging(run, z, steady)]
    sized += _sized(eager.optimizer(run, statics, z, steady))
    sized += _sized(evaluation.instants(run, statics, z, plan))
    peaks = (*_before_steps(run, statics, z), *_peaks(always, sized))
    return Simulation(peaks, steady, plan, resting, first_step, room)


def _before_steps(run: Run, statics: Statics, z: Sizes) -> tuple[Phase, Phase]:
    """Loading, and adding what trains. An embedding that leaves at the end of one of them was there until then."""
    loaded = base.loaded(run, statics, embedding_offloaded=False)
    leaves = embedding_leaves_after(run, statics, z.max_seq_length)
    adapted = base.resident(run, statics, z, embedding_offloaded=leaves == "load")
    return Phase("load", total(loaded), tuple(loaded)), Phase("peft", total(adapted), tuple(adapted))


def _sized(instants: list[Instant]) -> list[Sized]:
    return [(total(instant.rows), instant) for instant in instants]


def _first_step(sized: list[Sized], z: Sizes) -> int:
    """The widest of some instants in the first step, which moves the last layer's input to the host like all others."""
    return max([size - (z.u if _holds_last_input(instant) else 0) for size, instant in sized], default=0)


def _holds_last_input(instant: Instant) -> bool:
    """Whether the last layer's input is among an instant's layer inputs, of which it is the second row."""
    return len(instant.rows) > 1 and instant.rows[1][NAME] == LAST_INPUT


def _generate(run: Run, statics: Statics, z: Sizes) -> Simulation:
    """Prefill and decode: no gradients, no optimizer, nothing offloaded."""
    regime = Regime(
        offloads=False,
        double_buffer=False,
        embedding_offloaded=embedding_offloaded(run, statics, z.max_seq_length),
        steady=False,
    )
    resident = base.resident(run, statics, z, embedding_offloaded=regime.embedding_offloaded)
    always = [*resident, *_during_steps(run, statics, z)]
    peaks = (*_before_steps(run, statics, z), *_peaks(always, _sized(kv_cache.instants(run, statics, z))))
    return Simulation(peaks, regime, None, total(resident), 0, 0)


def _during_steps(run: Run, statics: Statics, z: Sizes) -> LiveSet:
    """What is there throughout every step, the first included."""
    return [*base.caches(run, statics, z), *eager.scratch(run, statics), *attention.masks(run, z)]


def _plan_loss(run: Run, z: Sizes, allocated: int, resting: int) -> LossPlan:
    free = room_bytes(run) - reserved_bytes(run, allocated, resting)
    return plan_loss(
        rows=z.sequences * max(z.length - 1, 1),
        hidden_size=run.architecture.hidden_size,
        vocab_size=run.architecture.vocab_size,
        head_trains=bool(run.job.full_finetuning) or "lm_head" in run.job.modules_to_save,
        free_bytes=max(free, 0),
        total_bytes=run.device.total_bytes,
        capability=run.device.compute_capability[0],
    )


def _peaks(always: LiveSet, sized: list[Sized]) -> list[Phase]:
    """The widest instant of each phase, in order of first appearance."""
    under = total(always)
    widest: dict[str, Sized] = {}
    for size, instant in sized:
        if instant.phase not in widest or size > widest[instant.phase][0]:
            widest[instant.phase] = size, instant
    return [
        Phase(phase, under + size, (*always, *instant.rows), instant.name) for phase, (size, instant) in widest.items()
    ]
