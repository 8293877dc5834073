"""docs/claims.md: its tables are what the script writes, and no number in its text is our own."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import ctxplan
from ctxplan.tiers import range_end, read_evidence, target_of, tiers
from estimator import find_device
from estimator.allocator import MIB
from estimator.checkpointing import MINIMUM_OFFLOAD_BYTES, SMART_MIN_LENGTH

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
SCRIPT: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "claims"))
QUOTED = {"13", "30", "4", "2", "32", "32K", "12", "60K", "228,199", "56,420", "81K", "9K", "15K"}
"""Numbers that are the claims'; the published lengths are those of the script."""
UNITS = {"10^9", "2^30", "95"}
CONDITIONS = {"1", "16", "24", "80"}
"""Batch, bits and card sizes that the claims state."""


def prose() -> str:
    """The text without its tables, its quotations, names of things and years."""
    text = re.sub(r"<!-- ([\w-]+) -->.*?<!-- /\1 -->", "", TEXT, flags=re.DOTALL)
    text = re.sub(r"^>.*$", "", text, flags=re.MULTILINE)
    text = " ".join(text.split())
    text = re.sub(r"`[^`]*`|Llama[ -]3\.[13]|FlashAttention [23]|[HA]100|RTX 4090|gpt-oss-\d+b|\b\d+B\b", "", text)
    return re.sub(r"\b20(24|25|26)\b", "", text)


def test_the_tables_are_what_the_script_writes() -> None:
    run = subprocess.run(
        [sys.executable, "scripts/claims", "--check"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert run.returncode == 0, run.stderr


def test_a_table_that_was_edited_by_hand_is_noticed() -> None:
    assert SCRIPT["document"](TEXT) == TEXT
    edited = TEXT.replace("| 89,389 |", "| 89,390 |", 1)
    assert edited != TEXT
    assert SCRIPT["document"](edited) == TEXT


def test_no_number_in_the_text_is_typed_but_those_that_are_claimed() -> None:
    published = {
        f"{n:,}" for name in ("PUBLISHED", "PUBLISHED_STOCK") for by in SCRIPT[name].values() for n in by.values()
    }
    thresholds = {f"{SMART_MIN_LENGTH}", f"{MINIMUM_OFFLOAD_BYTES // MIB}", "89K"}
    allowed = QUOTED | UNITS | CONDITIONS | published | thresholds
    found = set(re.findall(r"\d[\d,.^]*\d[KB]?|\d[KB]?", prose()))
    assert found <= allowed, found - allowed


def test_every_claim_names_its_source_and_its_baseline() -> None:
    for section in TEXT.split("\n## ")[1:]:
        assert "Source: " in section, section.splitlines()[0]
        assert re.search(r"Stated (baseline|conditions):", section), section.splitlines()[0]


def test_every_tier_is_in_the_table() -> None:
    table = TEXT.split("<!-- tiers -->")[1].split("<!-- /tiers -->")[0]
    assert all(f"`{tier.name}`" in table for tier in tiers())


def test_the_published_points_do_lie_on_a_line_to_a_token() -> None:
    lines = SCRIPT["line_table"]()[2:]
    assert lines
    assert all(float(line.split("|")[-2]) < 1 for line in lines)


def test_the_stock_baseline_peaks_in_the_loss_whatever_its_attention() -> None:
    peaks = set()
    for attention in ("sdpa", "flash_attention_2"):
        job = SCRIPT["job"](SCRIPT["LLAMA_70B"], framework="transformers", max_seq_length=6_916)
        answer = ctxplan.estimate({**job, "attn_implementation": attention})
        assert any(term.name == "logits_gradients" for term in answer.terms)
        peaks.add(answer.peak_allocated_bytes.expected)
    assert len(peaks) == 1


def test_no_card_that_the_text_calls_unmeasured_has_been_measured() -> None:
    assert "no A100 has been measured" in " ".join(TEXT.split())
    assert not [row.gpu for row in SCRIPT["measured"]() if "A100" in str(row.gpu)]


def test_the_16_bit_weights_of_the_120b_model_are_larger_than_the_card() -> None:
    job = {"model": "unsloth/gpt-oss-120b", "gpu": "H100-80GB", "load_in_4bit": False, "load_in_16bit": True}
    answer = ctxplan.estimate(job)
    weights = next(term.bytes for term in answer.phases[0].terms if term.name == "base_weights")
    assert weights > find_device("H100-80GB").total_bytes
    assert "16-bit weights alone are larger than the card" in " ".join(TEXT.split())


def test_what_the_longest_tiers_are_below_is_the_end_of_lengths_that_fit() -> None:
    table = TEXT.split("<!-- tier-lengths -->")[1].split("<!-- /tier-lengths -->")[0]
    for tier in tiers():
        if tier.below is None:
            continue
        planned = target_of(tier, SCRIPT["PLANNER"]).planned
        assert planned
        end = range_end(planned, tier.below)
        ends = [planned.expected, *(first - 1 for first, _ in planned.does_not_fit)]
        assert end in ends
        assert f"| {end:,} | {100 * tier.below:g} | {int(end * (1 - tier.below)):,} |" in table


def test_the_run_on_a_full_card_says_its_retries() -> None:
    table = TEXT.split("<!-- tier-runs -->")[1].split("<!-- /tier-runs -->")[0]
    for tier in tiers():
        found = read_evidence(tier.name)
        if found and found["measurements"]:
            retries = found["measurements"][-1]["allocator"]["retries"]
            (line,) = (line for line in table.splitlines() if f"`{tier.name}`" in line)
            assert line.endswith(f"| {retries} |")
