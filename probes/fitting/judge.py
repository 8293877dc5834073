"""What a calibration says of measured points, beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import median

from estimator.answer import Outcome, Prepared, outcome_at
from estimator.calibration.document import Calibration
from probes.fitting.observations import Observation

CONFIDENCES = (0.5, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One point and its answer. Errors are expected over measured less one: positive where too much is expected."""

    one: Observation
    answer: Outcome

    @property
    def error(self) -> float:
        return self.answer.allocated.expected / self.one.peak_bytes - 1

    @property
    def margin(self) -> float:
        """How far the upper bound lies above what was measured; negative where it does not hold."""
        return self.answer.allocated.upper / self.one.peak_bytes - 1

    @property
    def reserved_error(self) -> float | None:
        measured = self.one.measured.peak_reserved_bytes
        return self.answer.reserved.expected / measured - 1 if measured else None

    @property
    def device_error_bytes(self) -> int | None:
        """None where the driver's count was not taken, or other processes disturbed it."""
        used, reserved = self.one.measured.device_used_bytes, self.one.measured.peak_reserved_bytes
        counted = used and reserved and self.one.has_room and used > reserved
        return self.answer.device.expected - used if used and counted else None

    @property
    def host_error(self) -> float | None:
        """Of resident host RAM; None where it was not taken, or other lengths ran before in the process."""
        host = self.one.measured.host
        if host is None or not host.rss_bytes or self.one.measured.lengths_before != ():
            return None
        return self.answer.host.total_bytes / host.rss_bytes - 1


def judge(
    observed: Iterable[Observation], calibration: Calibration, *, confidence: float | None = None
) -> list[Judged]:
    """Every observation with the answer that a calibration gives to its job, at its own or another confidence."""
    return [Judged(one=one, answer=_answer(one, calibration, confidence)) for one in observed]


def coverage(judged: Sequence[Judged]) -> float:
    """The share of points whose measured peak is not above the bound."""
    return sum(one.margin >= 0 for one in judged) / len(judged)


def middle(judged: Iterable[Judged], of: Callable[[Judged], float | None]) -> float | None:
    """The median of absolute values; None where no point has one."""
    found = [abs(value) for one in judged if (value := of(one)) is not None]
    return median(found) if found else None


def _answer(one: Observation, calibration: Calibration, confidence: float | None) -> Outcome:
    run, statics = one.prepared
    job = run.job if confidence is None else replace(run.job, confidence=confidence)
    prepared = Prepared(run._replace(calibration=calibration, job=job), statics)
    return outcome_at(prepared, one.z.max_seq_length, one.z.length)
