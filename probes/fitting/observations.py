"""A measurement with what the structure, without any calibration, says of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from estimator.answer import Prepared, prepare
from estimator.calibration.corrections import CORRECTED_PATHS, kind_of, widths
from estimator.calibration.document import STRUCTURAL, Calibration
from estimator.calibration.reserved import room_bytes
from estimator.checkpointing import mode
from estimator.device import find_device
from estimator.errors import CtxplanError
from estimator.phases import Simulation, simulate
from estimator.sizes import Sizes, sizes_of
from probes.comparison import PLANNER, Row
from probes.measurement import Measurement

NEARLY_FULL = 0.9
"""Share of the card's room from which the allocator gives back what it would keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One point that ended well on a GPU, prepared as its own card and trainer ran it.

    Attributes:
        measured: the document. prepared: the structure's run. z: its sizes. device: catalogue name of the card.
        kind: `estimator.calibration.corrections.kind_of`. family: ``model_type``. checkpointing: the mode in effect.
    """

    measured: Measurement
    prepared: Prepared
    z: Sizes
    device: str
    kind: str
    family: str
    checkpointing: object

    @property
    def path(self) -> str:
        return self.prepared.run.path

    @property
    def peak_bytes(self) -> int:
        return self.measured.peak_allocated_bytes or 0

    @property
    def has_coefficients(self) -> bool:
        return self.path in CORRECTED_PATHS

    @property
    def widths(self) -> dict[str, int]:
        return widths(self.prepared.run, self.z)

    @property
    def has_room(self) -> bool:
        """Whether the allocator was free to keep what it freed."""
        return (self.measured.peak_reserved_bytes or 0) < NEARLY_FULL * room_bytes(self.prepared.run)

    def simulated(self, calibration: Calibration = STRUCTURAL) -> Simulation:
        """The point on paper, with a calibration's coefficients or none."""
        run, statics = self.prepared
        return simulate(run._replace(calibration=calibration), statics, self.z)


def observations(rows: Iterable[Row]) -> list[Observation]:
    """What can be learnt from: training points that ended well on a GPU, on the path that is planned for them.

    A row whose process had variables that a job cannot say, or whose path was another than the planned one, is left
    out; so is one whose job cannot be planned any more.
    """
    found = []
    for row in rows:
        one = _observation(row)
        if one is not None:
            found.append(one)
    return found


def _observation(row: Row) -> Observation | None:
    measured = row.measured
    usable = measured.outcome == "ok" and measured.gpu is not None and row.trained and not row.has_variables
    if not usable or measured.execution_path == "cpu":
        return None
    try:
        architecture = PLANNER.facts(measured.job["model"]).architecture
        prepared = prepare(row.job, architecture, trainer=measured.trainer)
    except CtxplanError:
        return None
    run = prepared.run
    if run.path != measured.execution_path:
        return None
    job = run.job
    z = sizes_of(
        run.architecture,
        max_seq_length=job.max_seq_length,
        sequences=job.per_device_train_batch_size,
        length=job.sequence_length or job.max_seq_length,
    )
    return Observation(
        measured=measured,
        prepared=prepared,
        z=z,
        device=find_device(row.job.gpu).name,
        kind=kind_of(run),
        family=architecture.model_type,
        checkpointing=mode(run, z),
    )
