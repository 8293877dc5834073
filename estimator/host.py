"""Host RAM: what Unsloth's smart checkpointing keeps there, pinned or pageable, and the process itself.

Source: unsloth_zoo/gradient_checkpointing.py ``_new_host_buffer``, ``_pinned_block_bytes``, ``_block_fits_host_ram``.
"""

from __future__ import annotations

from typing import NamedTuple

from estimator.allocator import GIB, KIB, next_power_of_two

PROCESS_BYTES = 2_070_000_000
"""RSS of a training process before any layer input is offloaded: Python, torch, CUDA libraries. Measured: the 8B row at
2,048 tokens (2,659,565,568 B of RSS, less 32 pinned blocks of 16 MiB and the start-up slots)."""

STARTUP_SLOTS = 200
STARTUP_SLOT_BYTES = 256 * KIB
"""``CPU_BUFFERS`` at initialisation: 200 slots of 128 Ki elements, pinned."""


PAGE_BYTES, PAGE_ENTRY_BYTES = 4 * KIB, 8
"""The device maps pinned memory by pages of the host. Measured: an 8 B entry for each 4 KiB, 322 MiB for the 160 GiB of
Llama-3.3-70B at 89,389 tokens on an H100, 32 to 56 MiB for 16 GiB of Llama-3.1-8B at 65,536."""


class HostPlan(NamedTuple):
    """Host bytes by kind. ``pinned_slots`` of the offloaded layer inputs are pinned, the others pageable."""

    pinned_bytes: int
    pageable_bytes: int
    pinned_slots: int
    slots: int

    @property
    def total_bytes(self) -> int:
        return self.pinned_bytes + self.pageable_bytes

    @property
    def page_table_bytes(self) -> int:
        """Device memory that maps the pinned memory."""
        return self.pinned_bytes // PAGE_BYTES * PAGE_ENTRY_BYTES


def host_plan(
    *,
    slots: int,
    slot_bytes: int,
    embedding_bytes: int,
    pin: bool,
    host_ram_bytes: int | None,
    process_bytes: int = PROCESS_BYTES,
) -> HostPlan:
    """Host RAM of a run.

    Args:
        slots: offloaded layer inputs, one buffer each. slot_bytes: u. embedding_bytes: the embedding, where it moved
        to the host.
        pin: whether pinned memory is allowed. host_ram_bytes: the host's RAM; None never limits.
        process_bytes: the process itself.
    """
    pageable = process_bytes + embedding_bytes
    if not slots:
        return HostPlan(pinned_bytes=0, pageable_bytes=pageable, pinned_slots=0, slots=0)
    startup = STARTUP_SLOTS * STARTUP_SLOT_BYTES
    if not pin:
        return HostPlan(
            pinned_bytes=0, pageable_bytes=pageable + startup + slots * slot_bytes, pinned_slots=0, slots=slots
        )
    rounded = next_power_of_two(slot_bytes)
    pinned_slots = slots
    if host_ram_bytes is not None:
        headroom = min(GIB, host_ram_bytes // 10)
        available = host_ram_bytes - pageable - startup - headroom
        pinned_slots = min(slots, max(0, available // rounded))
    return HostPlan(
        pinned_bytes=startup + pinned_slots * rounded,
        pageable_bytes=pageable + (slots - pinned_slots) * slot_bytes,
        pinned_slots=pinned_slots,
        slots=slots,
    )
