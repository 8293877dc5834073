"""Room that is left: a larger batch."""

from __future__ import annotations

from estimator.advise.bench import REFUSED, Bench, simulated
from estimator.advise.options import Option, divisors
from estimator.advise.prices import LARGER_BATCH, Paid, folded, other_batch
from estimator.resolve import Run
from estimator.solve import Stretch, last_true

MOST_SEQUENCES = 65_536
MOST_TRIED = 3


def batch_options(bench: Bench, run: Run) -> list[Option]:
    """Larger micro-batches that fit: one with the same effective batch where gradients are accumulated, and the
    largest of all.
    """
    batch, steps = run.job.per_device_train_batch_size, run.job.gradient_accumulation_steps
    most = _most_sequences(bench, batch)
    if run.job.mode == "generate":
        return [_option(bench, most, steps, LARGER_BATCH)] if most > batch else []
    options = []
    larger = _folded(bench, batch, steps, most)
    if larger > 1:
        options.append(_option(bench, batch * larger, steps // larger, folded(effective=batch * steps)))
    if most > batch * steps and _fits(bench, most, 1):
        options.append(_option(bench, most, 1, other_batch(batch * steps, most)))
    return options


def _folded(bench: Bench, batch: int, steps: int, most: int) -> int:
    """How many accumulated micro-batches fit at once: the largest divisor of the steps, 1 where none does."""
    factors = [f for f in divisors(steps) if 1 < f <= most // batch][-MOST_TRIED:]
    return next((f for f in reversed(factors) if _fits(bench, batch * f, steps // f)), 1)


def _option(bench: Bench, batch: int, steps: int, paid: Paid) -> Option:
    changes = {"per_device_train_batch_size": batch, "gradient_accumulation_steps": steps}
    return Option({key: value for key, value in changes.items() if value != getattr(bench.job, key)}, *paid)


def _most_sequences(bench: Bench, batch: int) -> int:
    """The largest batch that fits, at least the one at hand."""
    if batch >= MOST_SEQUENCES:
        return batch
    return last_true(Stretch(batch, MOST_SEQUENCES), lambda sequences: _room(bench, sequences))


def _fits(bench: Bench, batch: int, steps: int) -> bool:
    return _room(bench, batch, gradient_accumulation_steps=steps) > 0


def _room(bench: Bench, batch: int, **changes: int) -> int:
    prepared = bench.prepare({"per_device_train_batch_size": batch, **changes})
    return REFUSED if prepared is None else simulated(prepared).safe_room
