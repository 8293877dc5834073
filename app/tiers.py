"""The tiers as the service shows them: read and planned once, when they are first asked for."""

from __future__ import annotations

from functools import cache
from typing import Any

from ctxplan import Planner
from ctxplan.tiers import find_tier, read_evidence, tier_to_json, tiers_to_json


@cache
def listed() -> list[dict[str, Any]]:
    """Every tier, as plain JSON values."""
    return tiers_to_json(Planner(offline=True))


def shown(name: str) -> dict[str, Any]:
    """One tier with its evidence. Raises UnknownTier."""
    tier = find_tier(name)
    return _shown(tier.name)


@cache
def _shown(name: str) -> dict[str, Any]:
    evidence = read_evidence(name)
    return {**tier_to_json(find_tier(name), Planner(offline=True), evidence), "evidence": evidence}
