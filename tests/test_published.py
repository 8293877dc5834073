"""docs/published.md: it is what the script writes, its numbers are planned, and no difference is explained away."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import ctxplan

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "published.md").read_text(encoding="utf-8")
DATA: dict[str, Any] = json.loads((ROOT / "benchmarks" / "published.json").read_text(encoding="utf-8"))
SCRIPT: dict[str, Any] = runpy.run_path(str(ROOT / "scripts" / "published"))
GROUPS = {group["title"]: group for group in DATA["groups"]}

GROUP_KEYS = {"title", "source", "settings", "metric", "unit", "job", "rows", "tries", "settles", "rounding", "limit"}
ROW_KEYS = {"what", "published", "published_to", "changes", "minus", "per", "per_logits", "unit", "metric"}
TRY_KEYS = {
    "said",
    "changes",
    "metric",
    "unit",
    "card_unit",
    "per_logit",
    "row_weights",
    "when",
    "when_metric",
}


def compared(title: str) -> dict[str, Any]:
    """A group's rows beside ours, by name."""
    return {row.what: row for row in SCRIPT["compare"](DATA, GROUPS[title])}


def made_up(*published: float, tries: list[dict[str, Any]], changes: dict[str, Any] | None = None) -> dict[str, Any]:
    """A group of equal jobs with these published gibibytes."""
    rows = [{"what": f"{i}", "published": size, "changes": changes or {}} for i, size in enumerate(published)]
    job = {"model": "Qwen/Qwen3-8B", "gpu": "H100-80GB", "max_seq_length": 8192}
    return {"title": "", "metric": "allocated", "unit": "GiB", "job": job, "rows": rows, "tries": tries}


def test_the_file_is_what_the_script_writes() -> None:
    run = subprocess.run(
        [sys.executable, "scripts/published", "--check"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert run.returncode == 0, run.stderr


def test_every_published_number_is_in_a_table() -> None:
    total = sum(len(group["rows"]) for group in DATA["groups"])
    assert total > 100
    assert len(re.findall(r"^\|(?! group).*\| (?:agrees|open|explained by \([a-h]\)) \|$", TEXT, re.MULTILINE)) == total
    assert f"| together |  | {total} |" in TEXT


@pytest.mark.parametrize("title", GROUPS)
def test_every_group_names_its_source_its_date_its_class_and_its_settings(title: str) -> None:
    group = GROUPS[title]
    source = group["source"]
    assert all(source[key] for key in ("title", "where", "date"))
    assert source["class"] in ("A", "A-", "B", "C")
    assert group["settings"]
    assert f"## {title}\n" in TEXT


@pytest.mark.parametrize("title", GROUPS)
def test_a_group_has_no_key_that_the_script_does_not_read(title: str) -> None:
    group = GROUPS[title]
    assert set(group) <= GROUP_KEYS
    assert all(set(row) <= ROW_KEYS for row in group["rows"])
    assert all(set(one) <= TRY_KEYS and one["said"] for one in group["tries"])


@pytest.mark.parametrize("title", GROUPS)
def test_a_group_with_open_rows_says_what_would_settle_them(title: str) -> None:
    is_open = any(row.finding == "open" for row in compared(title).values())
    assert not is_open or GROUPS[title]["settles"]


def test_a_number_of_ours_is_the_planner_s() -> None:
    title = "LLaMA-Factory: Llama-2-7B with FlashAttention 2 by length"
    group = GROUPS[title]
    row = next(row for row in group["rows"] if row["what"] == "16,384 tokens")
    planned = ctxplan.estimate({**group["job"], **row["changes"]}).peak_allocated_bytes.expected
    assert compared(title)["16,384 tokens"].ours == planned / 2**30


def test_a_try_explains_nothing_where_it_holds_for_half_of_the_rows_alone() -> None:
    ours = SCRIPT["compare"](DATA, made_up(1.0, tries=[]))[0].ours
    checkpointed = {"said": "", "changes": {"use_gradient_checkpointing": True}}
    other = SCRIPT["compare"](DATA, made_up(1.0, tries=[checkpointed]))[0].tries[0]
    assert abs(other / ours - 1) > 0.2
    half = SCRIPT["compare"](DATA, made_up(other, 3 * other, tries=[checkpointed]))
    most = SCRIPT["compare"](DATA, made_up(other, other, 3 * other, tries=[checkpointed]))
    assert [row.finding for row in half] == ["open", "open"]
    assert [row.finding for row in most] == ["explained by (a)", "explained by (a)", "open"]


def test_what_agrees_needs_no_explanation_and_what_is_far_off_stays_open() -> None:
    ours = SCRIPT["compare"](DATA, made_up(1.0, tries=[]))[0].ours
    findings = [row.finding for row in SCRIPT["compare"](DATA, made_up(ours * 1.09, ours * 2, tries=[]))]
    assert findings == ["agrees", "open"]


def test_a_job_that_ran_out_of_memory_agrees_only_where_ours_does_not_fit() -> None:
    group = made_up(1.0, tries=[])
    group["rows"][0]["published"] = None
    assert SCRIPT["compare"](DATA, group)[0].finding == "open"
    group["rows"][0]["changes"] = {"gpu": {"name": "H100-80GB", "total_bytes": 6 * 2**30}}
    assert SCRIPT["compare"](DATA, group)[0].finding == "agrees"


def test_bytes_a_logit_shorten_a_length_to_what_still_fits() -> None:
    job = {"model": "Qwen/Qwen3-8B", "gpu": "RTX-4090-24GB"}
    plain, shorter = (SCRIPT["longest"](job, one) for one in ({}, {"per_logit": 4}))
    assert 0 < shorter < plain
    vocabulary = 151936
    for length, fits in ((shorter, True), (shorter + 1, False)):
        found = ctxplan.estimate({**job, "max_seq_length": length})
        assert (found.needed_bytes.expected + 4 * vocabulary * length <= found.room_bytes) is fits


def test_double_quantisation_saves_what_was_published_to_the_rounding() -> None:
    assert {row.finding for row in compared("LitGPT: what double quantisation saves").values()} == {"agrees"}


def test_the_loss_holds_as_many_widths_of_the_logits_as_were_measured() -> None:
    assert {row.finding for row in compared("Tensors as wide as the logits, in the loss's backward").values()} == {
        "agrees"
    }


def test_equal_tokens_need_equal_memory_however_they_are_cut() -> None:
    title = "fsdp_qlora: Llama-2-7B with a whole copy on each card, and equal tokens"
    row = compared(title)["Mistral-7B: 12 sequences of 2,048 less one of 24,576"]
    assert row.published == 0
    assert row.finding == "agrees"


def test_what_is_left_out_has_its_reason_and_is_compared_once_it_is_modelled() -> None:
    for entry in DATA["not_compared"]:
        assert SCRIPT["reason"](entry, DATA["models"])
    with pytest.raises(SystemExit, match="is modelled now"):
        SCRIPT["reason"]({"source": "x", "why": "", "quantisation": "fp8"}, DATA["models"])
