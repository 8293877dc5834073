"""Tiers: claims such as "70B QLoRA, 89,389 tokens, one 80 GB card", and the evidence that was committed for them.

The claims are in ``tiers.json`` beside this file. The evidence is what ``ctxplan tier confirm`` wrote: in an installed
wheel under ``ctxplan/evidence/tiers``, in a checkout under ``evidence/tiers``. Both are read when first asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ctxplan.planning import Planner
from estimator import DEVICES, Job, MaxContext, find_device, job_to_json, parse_job
from estimator.errors import CtxplanError
from estimator.rules import shown

HERE = Path(__file__).resolve().parent
EVIDENCE = (HERE / "evidence" / "tiers", HERE.parent / "evidence" / "tiers")
"""Where confirmations lie: in a wheel, in a checkout. The first that is there is read."""


class UnknownTier(CtxplanError):
    """A tier that is not defined; the error names those that are."""

    code = "unknown-tier"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One claim.

    Attributes:
        claim, source: what is said, and by whom. job: the run that would show it.
        card: a regular expression of the driver's names of the cards that it is about.
        below: None where the job has the claimed length; else the length is the longest context that the estimator
            expects, less this share of it.
    """

    name: str
    claim: str
    source: str
    card: str
    job: Job
    below: float | None


class Target(NamedTuple):
    """A tier's run: the job at the claimed length, in tokens. ``planned``: what that length is from, if planned."""

    job: Job
    length: int
    planned: MaxContext | None


@cache
def tiers() -> tuple[Tier, ...]:
    """Every tier, in the order of the file."""
    entries = json.loads((HERE / "tiers.json").read_text(encoding="utf-8"))["tiers"]
    return tuple(Tier(**{**entry, "job": parse_job(entry["job"])}) for entry in entries)


def find_tier(name: str) -> Tier:
    """The tier of that name. Raises UnknownTier."""
    found = next((tier for tier in tiers() if tier.name == name), None)
    if found is None:
        raise UnknownTier(f"{shown(name)} is no tier", key="name", allowed=", ".join(tier.name for tier in tiers()))
    return found


def target_of(tier: Tier, planner: Planner) -> Target:
    """The run that a tier claims. Raises CtxplanError where its length cannot be planned."""
    if tier.below is None:
        return Target(tier.job, tier.job.sequence_length or tier.job.max_seq_length, None)
    planned = planner.max_context(tier.job)
    length = length_below(planned, tier.below)
    return Target(replace(tier.job, max_seq_length=length), length, planned)


def length_below(planned: MaxContext, share: float) -> int:
    """The longest length that is a share below `range_end`."""
    return int(range_end(planned, share) * (1 - share))


def range_end(planned: MaxContext, share: float) -> int:
    """The end of a range of lengths that fit: of the last range, or of the one below where the last is narrower than
    the share."""
    end = planned.expected
    for first, last in reversed(planned.does_not_fit):
        if int(end * (1 - share)) > last:
            break
        end = first - 1
    return end


def cards_not_run(tier: Tier, evidence: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Names of the catalogue's cards that a tier is about, and on which its evidence did not run."""
    name = (evidence or {}).get("gpu")
    about = [device for device in DEVICES if re.search(tier.card, device.name)]
    return tuple(device.name for device in about if not name or find_device(name).name != device.name)


def read_evidence(name: str, directories: tuple[Path, ...] = EVIDENCE) -> Mapping[str, Any] | None:
    """What a confirmation of this tier wrote; None where none has been committed."""
    return _documents(directories).get(name)


def tier_to_json(tier: Tier, planner: Planner, evidence: Mapping[str, Any] | None) -> dict[str, Any]:
    """The tier, its run, and what the evidence says of it, as plain JSON values; without the evidence itself.

    Raises:
        CtxplanError: the tier's length cannot be planned.
    """
    target = target_of(tier, planner)
    found = evidence or {}
    measured = ("emulated", "gpu", "num_hidden_layers", "peak_allocated_bytes", "measured_at", "reason")
    return {
        "name": tier.name,
        "claim": tier.claim,
        "source": tier.source,
        "sequence_length": target.length,
        "limited_by": target.planned.limited_by if target.planned else None,
        "job": job_to_json(target.job),
        "confirmed": bool(found.get("confirmed")),
        "measured": {"sequence_length": found.get("sequence_length"), **{key: found.get(key) for key in measured}}
        if evidence
        else None,
    }


def tiers_to_json(planner: Planner) -> list[dict[str, Any]]:
    """Every tier with what its evidence says."""
    return [tier_to_json(tier, planner, read_evidence(tier.name)) for tier in tiers()]


@cache
def _documents(directories: tuple[Path, ...]) -> Mapping[str, Mapping[str, Any]]:
    directory = next((one for one in directories if one.is_dir()), None)
    if directory is None:
        return {}
    files = sorted(directory.glob("*.json"))
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
