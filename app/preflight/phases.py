"""The peaks of a run in the order in which it meets them, each of which has stopped somebody's run."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from app.preflight.findings import Case
from estimator.answer import outcome_at, prepare

STEP_PHASES = ("forward", "loss", "backward", "optimizer")


class PhasePeak(NamedTuple):
    """The largest sum of live bytes in a part of the run.

    Attributes:
        sequence_length: tokens of a sequence there; None where the part has none. host_bytes: RAM that it takes on the
        host, where that is its own.
    """

    phase: str
    allocated_bytes: int
    sequence_length: int | None = None
    host_bytes: int | None = None

    def to_json(self) -> dict[str, Any]:
        return self._asdict()


def phases_of(case: Case) -> tuple[PhasePeak, ...]:
    """load, first_step, steady_state, longest_sample, evaluation (where one is planned) and save.

    ``steady_state`` is a step of the median sample where the data is known, else of the longest. A generating job has
    the phases of its estimate.
    """
    by_name = {phase.phase: phase.allocated_bytes for phase in case.estimate.phases}
    if not case.trains:
        return tuple(PhasePeak(name, size, case.length) for name, size in by_name.items())
    steps = max(by_name[name] for name in STEP_PHASES if name in by_name)
    peaks = [
        PhasePeak("load", max(by_name["load"], by_name["peft"])),
        PhasePeak("first_step", max(_first_step(case), by_name["optimizer"]), case.length),
        _steady_state(case, steps),
        PhasePeak("longest_sample", steps, case.length),
    ]
    if "evaluation" in by_name:
        peaks.append(PhasePeak("evaluation", by_name["evaluation"], case.length))
    return (*peaks, _save(case, by_name["peft"]))


def _first_step(case: Case) -> int:
    """The first step has no optimizer state and no second staging buffer yet, until its own optimizer step."""
    prepared = prepare(case.asked, case.facts.architecture, case.planner.calibration)
    return outcome_at(prepared, case.job.max_seq_length, case.length).simulation.first_step_bytes


def _steady_state(case: Case, longest: int) -> PhasePeak:
    tokens = case.tokens
    if tokens is None or case.reading.packs or not 0 < tokens.p50 < case.length:
        return PhasePeak("steady_state", longest, case.length)
    answer = case.planner.estimate(replace(case.asked, sequence_length=tokens.p50), case.facts)
    steps = max(phase.allocated_bytes for phase in answer.phases if phase.phase in STEP_PHASES)
    return PhasePeak("steady_state", steps, tokens.p50)


def _save(case: Case, between_steps: int) -> PhasePeak:
    """Between two steps: weights, adapters and optimizer state, all read and none copied on the GPU. The host holds
    what is written: what trains, as large as its gradients, and its optimizer state.

    Source: transformers/trainer.py ``_save_checkpoint``, safetensors/torch.py ``save_file``.
    """
    optimizer = next(phase for phase in case.estimate.phases if phase.phase == "optimizer")
    sizes = {term.name: term.bytes for term in optimizer.terms}
    state = sizes.get("optimizer_state", 0)
    return PhasePeak("save", between_steps + state, None, sizes.get("gradients", 0) + state)
