"""From allocated bytes to what torch reserves for them and what the driver counts."""

from __future__ import annotations

from estimator.calibration import structural
from estimator.calibration.bound import conformal_margin
from estimator.calibration.corrections import kind_of
from estimator.calibration.document import Fragmentation
from estimator.resolve import Run


def reserved_bytes(
    run: Run, allocated_bytes: int, resting_bytes: int, *, upper: bool = False, beside_bytes: int = 0
) -> int:
    """Reserved for an allocated peak: with fragmentation where there is room, else what is left of the card.

    Args:
        resting_bytes: the part of it that stays between the steps: weights and what trains.
        beside_bytes: what else the process keeps on the device, unknown to torch (managed memory).
    """
    least = least_reserved_bytes(run, allocated_bytes, resting_bytes, upper=upper)
    fragmented = with_fragmentation(run, allocated_bytes, resting_bytes, upper=upper)
    return min(fragmented, max(least, room_bytes(run) - beside_bytes))


def least_reserved_bytes(run: Run, allocated_bytes: int, resting_bytes: int, *, upper: bool = False) -> int:
    """What must be reserved for an allocated peak when the allocator gives back all that it can."""
    slack = structural.PRESSURE_SLACK_UPPER_BYTES if upper else structural.PRESSURE_SLACK_BYTES
    return min(allocated_bytes + slack, with_fragmentation(run, allocated_bytes, resting_bytes, upper=upper))


def with_fragmentation(run: Run, allocated_bytes: int, resting_bytes: int, *, upper: bool = False) -> int:
    """Reserved on a card with room to spare, where freed blocks stay with the process."""
    fitted = _fitted(run)
    if fitted is None:
        return allocated_bytes + int(allocated_bytes * _structural_share(run, upper=upper))
    moving = max(allocated_bytes - resting_bytes, 0)
    expected = allocated_bytes + int(moving * fitted.share) + fitted.constant_bytes
    if not upper:
        return expected
    margin, _ = conformal_margin(fitted.residuals, run.job.confidence)
    return expected + int(expected * margin)


def room_bytes(run: Run) -> int:
    """What torch can reserve on the device once its kernels are loaded."""
    return run.device.usable_bytes - modules_bytes(run)


def modules_bytes(run: Run, *, upper: bool = False) -> int:
    """What the driver counts beside the context and what torch reserved: loaded kernels."""
    modules = run.calibration.modules.get(run.device.name) or run.calibration.modules.get("")
    if modules is None:
        return structural.LOADED_MODULES_BYTES + (structural.MORE_MODULES_BYTES if upper else 0)
    if not upper:
        return modules.expected
    return max(modules.measured[-1], modules.expected)


def _fitted(run: Run) -> Fragmentation | None:
    found = run.calibration.reserved
    if run.job.unsloth_tiled_mlp:
        return found.get(f"{run.path}/tiled")
    return found.get(f"{run.path}/{kind_of(run)}") or found.get(run.path)


def _structural_share(run: Run, *, upper: bool) -> float:
    margins = structural.PATH_MARGINS[run.path]
    share = margins.reserved_upper if upper else margins.reserved
    if run.job.unsloth_tiled_mlp:
        share = max(share, structural.TILED_RESERVED_UPPER if upper else structural.TILED_RESERVED)
    return share
