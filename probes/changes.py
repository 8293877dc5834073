"""The smallest change of a job with which it fits a machine that its default does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations
from typing import Any, NamedTuple

from ctxplan import Planner
from estimator import Estimate, Job, JobError

GIB = 2**30


class Change(NamedTuple):
    """One key of the job, what the user's default is, what was run instead, and why."""

    key: str
    default: Any
    value: Any
    why: str

    def to_json(self) -> dict[str, Any]:
        return {"key": self.key, "from": self.default, "to": self.value, "why": self.why}


class Setting(NamedTuple):
    """A key that costs nothing but time. ``limit``: what it saves, gpu or host."""

    key: str
    value: Any
    limit: str
    because: str


SETTINGS = (
    Setting(
        "pin_host_memory", False, "host", "each pinned buffer is rounded up to a power of two, pageable ones are not"
    ),
    Setting("padding_free", True, "gpu", "padding-free batches run Unsloth's own kernels, which keep fewer tensors"),
    Setting("offload_embedding", True, "gpu", "the input embedding is kept on the host"),
    Setting("unsloth_tiled_mlp", True, "gpu", "the MLP's intermediates are made a tile at a time"),
)
"""From the least to the most that a user would notice."""


def smallest_changes(job: Job, planner: Planner, *, needed: str | None = None) -> tuple[Job, tuple[Change, ...]] | None:
    """The job with the fewest changes that the estimate does not refuse; the job itself, unchanged, if it is one.

    Args:
        needed: what ran out when it was run all the same, ``gpu`` or ``host``: the changes must save some of it.

    Returns:
        None where no change helps.

    Raises:
        CtxplanError: the job cannot be planned.
    """
    before = planner.estimate(job)
    for settings in _combinations(before.job):
        changed = replace(job, **{setting.key: setting.value for setting in settings})
        try:
            after = planner.estimate(changed)
        except JobError:  # the change means nothing for this job
            continue
        if after.verdict != "does_not_fit" and (needed is None or _saves(needed, before, after)):
            changes = (Change(s.key, getattr(job, s.key), s.value, _why(s, before, after)) for s in settings)
            return changed, tuple(changes)
    return None


def _combinations(job: Job) -> Iterator[tuple[Setting, ...]]:
    """Of the settings that the resolved job does not have."""
    open_settings = [setting for setting in SETTINGS if getattr(job, setting.key) != setting.value]
    for count in range(len(open_settings) + 1):
        yield from combinations(open_settings, count)


def _saves(limit: str, before: Estimate, after: Estimate) -> bool:
    if limit == "host":
        return after.host_bytes.expected < before.host_bytes.expected
    return after.needed_bytes.expected < before.needed_bytes.expected


def _why(setting: Setting, before: Estimate, after: Estimate) -> str:
    if setting.limit == "host":
        ram = before.job.host_ram_bytes
        has = "" if ram is None else f", and this host has {ram / GIB:.1f} GiB"
        needs = f"{before.host_bytes.expected / GIB:.1f} GiB of host RAM"
        return (
            f"the default needs {needs}{has}; with the change {after.host_bytes.expected / GIB:.1f}: {setting.because}"
        )
    needs = f"{before.needed_bytes.expected / GIB:.1f} GiB, and the card leaves {before.room_bytes / GIB:.1f}"
    return f"the default needs {needs}; with the change {after.needed_bytes.expected / GIB:.1f}: {setting.because}"
