"""Each rule of docs/rules.md, with a job that it speaks of and one that it does not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from app.preflight import Question, TokenReport, check
from app.preflight.findings import LONG
from app.preflight.rules import IDS
from app.preflight.rules.data import SEQUENCES_PER_STEP
from app.preflight.rules.rope import LINEAR_LIMIT
from app.readers import read
from app.readers.document import document_of
from ctxplan import Planner
from tests.app.jobs import config

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([\w-]+)` \| (error|warning|note) \|", TABLE, re.MULTILINE)
PLANNER = Planner(offline=True)

SMALL = "unsloth/Llama-3.2-1B-Instruct"
QWEN3 = "Qwen/Qwen3-8B"
NATIVE = 40_960
"""Qwen3's max_position_embeddings; its RoPE has no scaling of its own."""
GPT_OSS = "openai/gpt-oss-20b"
TIER = "unsloth/Llama-3.3-70B-Instruct-bnb-4bit"


def data(longest: int, *, p50: int | None = None, p99: int | None = None) -> TokenReport:
    p99 = p99 or longest
    return TokenReport(documents=1000, tokens=10**7, p50=p50 or p99 // 2, p99=p99, longest=longest)


def found(job: dict[str, Any], tokens: TokenReport | None = None) -> dict[str, Any]:
    tool = None if "base_model" in job else "job"
    values = {"gpu": "H200-141GB", **job} if tool else job
    reading = read(document_of(values, "job.json"), tool)
    answer = check(Question(reading=reading, tokens=tokens, gpu=None if tool else "H200-141GB"), PLANNER)
    return {finding.rule: finding for finding in answer.findings}


def peak(job: dict[str, Any]) -> int:
    return PLANNER.estimate({"gpu": "H200-141GB", **job}).peak_allocated_bytes.expected


AXOLOTL = {"base_model": SMALL, "adapter": "lora", "lora_r": 8, "lora_target_linear": True}
LONG_JOB = {"model": SMALL, "max_seq_length": LONG + 1}
SPEAKS: dict[str, tuple[dict[str, Any], TokenReport | None]] = {
    "key-misspelt": ({**AXOLOTL, "micro_batch_sze": 2}, None),
    "key-unread": ({**AXOLOTL, "qqq": 2}, None),
    "checkpointing": ({**LONG_JOB, "use_gradient_checkpointing": True}, None),
    "dense-path": ({"model": TIER, "max_seq_length": 89_389, "r": 32, "padding_free": False}, None),
    "flex-attention": ({"model": GPT_OSS, "max_seq_length": 8192, "attn_implementation": "eager"}, None),
    "flex-attention-120b": ({"model": "openai/gpt-oss-120b", "max_seq_length": 8192}, None),
    "tier": ({"model": TIER, "max_seq_length": 89_389, "r": 32, "gpu": "H100-80GB"}, None),
    "evaluation": ({"model": SMALL, "per_device_eval_batch_size": 64}, None),
    "host-ram": ({"model": TIER, "max_seq_length": 89_389, "r": 32}, None),
    "rope-needless": ({"model": QWEN3, "max_seq_length": NATIVE + 1}, data(NATIVE)),
    "rope-base": ({"model": QWEN3, "max_seq_length": int(NATIVE * LINEAR_LIMIT) + 1}, None),
    "rope-linear": ({"model": QWEN3, "max_seq_length": NATIVE + 1}, None),
    "rope-llama3": ({"model": SMALL, "max_seq_length": 131_073}, None),
    "rope-unscaled": ({"model": QWEN3, "max_seq_length": NATIVE + 1, "framework": "transformers"}, None),
    "data-unknown": (LONG_JOB, None),
    "no-long-samples": ({"model": SMALL, "max_seq_length": 65_536}, data(65_536, p99=32_767)),
    "samples-cut": ({"model": SMALL, "max_seq_length": 2048}, data(2049)),
    "tokens-per-step": ({**LONG_JOB, "gradient_accumulation_steps": SEQUENCES_PER_STEP - 1}, None),
}
SILENT: dict[str, list[tuple[dict[str, Any], TokenReport | None]]] = {
    "checkpointing": [
        ({**LONG_JOB, "max_seq_length": LONG, "use_gradient_checkpointing": True}, None),
        (LONG_JOB, None),
        ({**LONG_JOB, "use_gradient_checkpointing": True}, data(4096)),
        ({**LONG_JOB, "mode": "generate", "use_gradient_checkpointing": True}, None),
    ],
    "dense-path": [
        ({"model": TIER, "max_seq_length": 89_389, "r": 32}, None),
        ({"model": TIER, "max_seq_length": 89_389, "r": 32, "padding_free": False, "block_compile": False}, None),
        ({"model": SMALL, "padding_free": False}, None),
    ],
    "flex-attention": [({"model": GPT_OSS, "max_seq_length": 8192}, None), (LONG_JOB, None)],
    "flex-attention-120b": [({"model": GPT_OSS, "max_seq_length": 8192}, None)],
    "tier": [
        ({"model": TIER, "r": 32, "gpu": "T4-16GB"}, None),
        ({"model": SMALL, "gpu": "H100-80GB"}, None),
        ({"model": config(), "gpu": "H100-80GB"}, None),
    ],
    "key-misspelt": [({**AXOLOTL, "micro_batch_size": 2}, None), ({**AXOLOTL, "qqq": 2}, None)],
    "key-unread": [({**AXOLOTL, "micro_batch_sze": 2}, None)],
    "evaluation": [({"model": SMALL, "per_device_eval_batch_size": 1}, None)],
    "host-ram": [
        ({"model": TIER, "max_seq_length": 89_389, "r": 32, "host_ram_bytes": 2**38}, None),
        ({"model": SMALL}, None),
    ],
    "rope-needless": [({"model": QWEN3, "max_seq_length": NATIVE + 1}, data(NATIVE + 1))],
    "rope-base": [({"model": QWEN3, "max_seq_length": int(NATIVE * LINEAR_LIMIT)}, None)],
    "rope-linear": [({"model": QWEN3, "max_seq_length": NATIVE}, None)],
    "rope-llama3": [({"model": SMALL, "max_seq_length": 131_072}, None)],
    "rope-unscaled": [({"model": QWEN3, "max_seq_length": NATIVE, "framework": "transformers"}, None)],
    "data-unknown": [({"model": SMALL, "max_seq_length": LONG}, None), (LONG_JOB, data(LONG))],
    "no-long-samples": [
        ({"model": SMALL, "max_seq_length": 65_536}, data(65_536, p99=32_768)),
        ({"model": SMALL, "max_seq_length": LONG}, data(100)),
    ],
    "samples-cut": [({"model": SMALL, "max_seq_length": 2048}, data(2048))],
    "tokens-per-step": [
        ({**LONG_JOB, "gradient_accumulation_steps": SEQUENCES_PER_STEP}, None),
        ({**LONG_JOB, "per_device_train_batch_size": SEQUENCES_PER_STEP}, None),
        ({"model": SMALL, "max_seq_length": LONG}, None),
    ],
}


def test_the_table_of_the_manual_has_every_rule_and_no_other() -> None:
    assert sorted(rule for rule, _ in ROWS) == sorted(IDS)
    assert set(SPEAKS) == set(SILENT) == set(IDS)


@pytest.mark.parametrize(("rule", "level"), ROWS)
def test_a_rule_speaks_where_its_row_says_so_and_at_its_level(rule: str, level: str) -> None:
    job, tokens = SPEAKS[rule]
    assert found(job, tokens)[rule].level == level


@pytest.mark.parametrize(("rule", "job", "tokens"), [(rule, *case) for rule, cases in SILENT.items() for case in cases])
def test_a_rule_is_silent_where_its_row_does_not_say_so(
    rule: str, job: dict[str, Any], tokens: TokenReport | None
) -> None:
    assert rule not in found(job, tokens)


@pytest.mark.parametrize("rule", SPEAKS)
def test_at_most_one_rule_speaks_of_rope(rule: str) -> None:
    assert sum(name.startswith("rope-") for name in found(*SPEAKS[rule])) <= 1


def test_a_misspelt_key_is_told_with_the_one_that_it_may_stand_for() -> None:
    finding = found({**AXOLOTL, "micro_batch_sze": 2})["key-misspelt"]
    assert finding.key == "micro_batch_sze"
    assert 'did you mean "micro_batch_size"?' in finding.message


def test_what_another_trainer_takes_more_is_given_no_single_cause() -> None:
    job = {**LONG_JOB, "framework": "transformers", "use_gradient_checkpointing": True}
    assert found(job)["checkpointing"].message.endswith(" GiB of GPU memory more than the same job in Unsloth")
    assert found({**LONG_JOB, "use_gradient_checkpointing": True})["checkpointing"].message.endswith("it would save")


def test_a_step_is_told_in_sequences() -> None:
    assert f"a step sees 1 sequence of {LONG + 1:,} tokens and" in found(LONG_JOB)["tokens-per-step"].message
    two = found({**LONG_JOB, "per_device_train_batch_size": 2})["tokens-per-step"].message
    assert f"a step sees 2 sequences of {LONG + 1:,} tokens, {2 * (LONG + 1):,} in all," in two


class TestBytes:
    """The bytes of a finding are a difference of two estimates that anyone can make."""

    def test_of_checkpointing(self) -> None:
        job = {**LONG_JOB, "use_gradient_checkpointing": True}
        assert found(job)["checkpointing"].bytes == peak(job) - peak(LONG_JOB) > 0

    def test_of_checkpointing_without_unsloth(self) -> None:
        job = {**LONG_JOB, "framework": "transformers", "use_gradient_checkpointing": True}
        assert found(job)["checkpointing"].bytes == peak(job) - peak(LONG_JOB) > 0

    def test_of_the_dense_path(self) -> None:
        job, _ = SPEAKS["dense-path"]
        assert found(job)["dense-path"].bytes == peak(job) - peak({**job, "block_compile": False}) > 0

    def test_of_flex_attention(self) -> None:
        job, _ = SPEAKS["flex-attention"]
        flex = {**job, "attn_implementation": "flex_attention"}
        assert found(job)["flex-attention"].bytes == peak(job) - peak(flex) > 0
        job, _ = SPEAKS["flex-attention-120b"]
        eager = {**job, "attn_implementation": "eager"}
        assert found(job)["flex-attention-120b"].bytes == peak(eager) - peak(job) > 0

    def test_of_samples_that_are_cut_and_of_those_that_are_not_there(self) -> None:
        job, tokens = SPEAKS["samples-cut"]
        assert found(job, tokens)["samples-cut"].bytes == peak({**job, "max_seq_length": 2049}) - peak(job)
        job, tokens = SPEAKS["no-long-samples"]
        assert found(job, tokens)["no-long-samples"].bytes == peak(job) - peak({**job, "max_seq_length": 65_534})

    def test_of_an_evaluation(self) -> None:
        job, _ = SPEAKS["evaluation"]
        assert found(job)["evaluation"].bytes == peak(job) - peak({"model": SMALL})

    def test_of_the_host(self) -> None:
        job, _ = SPEAKS["host-ram"]
        host = PLANNER.estimate({"gpu": "H200-141GB", **job}).host_bytes.expected
        assert found(job)["host-ram"].bytes == host


def test_the_base_that_is_named_is_that_of_the_formula_in_the_manual() -> None:
    job, _ = SPEAKS["rope-base"]
    factor = job["max_seq_length"] / NATIVE
    assert f"rope_theta about {1e6 * factor ** (128 / 126):,.0f}" in found(job)["rope-base"].message


def test_a_tier_says_whether_a_real_run_confirms_it_and_on_which_side_of_it_the_run_is() -> None:
    job, _ = SPEAKS["tier"]
    assert "llama-3.3-70b-qlora-89k (confirmed by a real run)" in found(job)["tier"].message
    assert "within it" in found(job)["tier"].message
    assert "beyond it" in found({**job, "max_seq_length": 300_000})["tier"].message


def test_the_gravest_finding_comes_first() -> None:
    levels = [finding.level for finding in found({**LONG_JOB, "use_gradient_checkpointing": False}).values()]
    assert levels == sorted(levels, key=["error", "warning", "note"].index)
    assert levels[0] == "error"


def test_the_numbers_of_the_manual_are_those_of_the_rules() -> None:
    assert f"{LONG:,} tokens" in TABLE
    assert f"fewer than {SEQUENCES_PER_STEP} sequences" in TABLE
    assert f"linearly by more than {LINEAR_LIMIT:g}" in TABLE
    assert 32 * 2 * LONG * 4096 == 8 * 2**30
