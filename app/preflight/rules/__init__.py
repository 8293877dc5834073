"""The rules of a preflight, in the order in which their findings are told. docs/rules.md has them in words."""

from __future__ import annotations

from app.preflight.findings import Case, Finding, Rule
from app.preflight.rules import card, checkpointing, data, keys, rope

RULES: tuple[Rule, ...] = (*keys.RULES, *checkpointing.RULES, *card.RULES, *rope.RULES, *data.RULES)
IDS = (
    "key-misspelt",
    "key-unread",
    "checkpointing",
    "dense-path",
    "flex-attention",
    "flex-attention-120b",
    "tier",
    "evaluation",
    "host-ram",
    "rope-needless",
    "rope-base",
    "rope-linear",
    "rope-llama3",
    "rope-unscaled",
    "data-unknown",
    "no-long-samples",
    "samples-cut",
    "tokens-per-step",
)
"""Every id that a finding can have; they are stable."""
_ORDER = ("error", "warning", "note")


def findings(case: Case) -> list[Finding]:
    """What the rules find, the gravest first."""
    found = [finding for rule in RULES for finding in rule(case)]
    return sorted(found, key=lambda finding: _ORDER.index(finding.level))
