"""RoPE at a length, the tables that it costs, and the key-value cache of a generation."""

from __future__ import annotations

from typing import Any

import pytest

from ctxplan.models import resolve_model
from estimator import estimate, parse_job
from estimator.architecture import Architecture
from estimator.device import find_device
from estimator.kv_cache import cache_bytes, cache_rows
from estimator.resolve import Run, resolve
from estimator.rope import cache_bytes as table_bytes
from estimator.rope import cache_rows as table_rows
from estimator.rope import describe_rope

LLAMA_3 = "meta-llama/Llama-3.1-8B-Instruct"
MISTRAL = "mistralai/Mistral-7B-Instruct-v0.3"
GEMMA_3 = "google/gemma-3-1b-it"


def shape(model: str) -> Architecture:
    return resolve_model(model, offline=True).architecture


class TestRope:
    def test_within_the_native_length_is_the_configs(self):
        described = describe_rope(shape(LLAMA_3).rope, 131_072, extends=True)
        assert (described["native_length"], described["scaling"], described["factor"]) == (131_072, "llama3", 1.0)
        assert "within the native length" in described["note"]

    def test_of_llama_3_beyond_it_keeps_its_scaling(self):
        described = describe_rope(shape(LLAMA_3).rope, 200_000, extends=True)
        assert (described["scaling"], described["factor"]) == ("llama3", 1.0)
        assert "widens the cache only" in described["note"]

    def test_of_others_beyond_it_becomes_linear(self):
        described = describe_rope(shape(MISTRAL).rope, 65_536, extends=True)
        assert (described["scaling"], described["factor"]) == ("linear", 2.0)
        assert "factor 2.000" in described["note"]

    def test_beyond_it_is_left_alone_by_plain_transformers(self):
        described = describe_rope(shape(MISTRAL).rope, 65_536, extends=False)
        assert (described["scaling"], described["factor"]) == ("default", 1.0)
        assert "expect lost quality" in described["note"]

    def test_is_among_the_assumptions_of_every_answer(self):
        answer = estimate(parse_job({"model": MISTRAL, "max_seq_length": 65_536}), shape(MISTRAL))
        assert answer.rope["scaling"] == "linear"
        assert any(text.startswith("RoPE: beyond the native length") for text in answer.assumptions)


class TestRopeTables:
    @pytest.mark.parametrize(
        ("max_seq_length", "rows"),
        [(2_048, 32_768), (32_768, 32_768), (32_769, 40_960), (89_389, 90_112), (131_072, 131_072)],
    )
    def test_of_a_dense_batch_grow_by_8192_rows(self, max_seq_length, rows):
        assert table_rows(shape(LLAMA_3).rope, max_seq_length, max_seq_length, positions_given=False) == rows

    def test_of_a_flattened_batch_cover_the_native_length(self):
        assert table_rows(shape(LLAMA_3).rope, 2_048, 2_048, positions_given=True) == 131_072

    def test_never_have_more_rows_than_can_be_asked_for(self):
        assert table_rows(shape("meta-llama/Llama-2-7b-hf").rope, 2_048, 2_048, positions_given=False) == 4_096
        assert table_rows(shape(LLAMA_3).rope, 200_001, 200_001, positions_given=False) == 200_001

    def test_are_two_of_head_dim_in_16_bit(self):
        # unsloth-memory.md, section 13, row 12
        assert table_bytes(shape("meta-llama/Llama-3.3-70B-Instruct"), 131_072) == 67_108_864


def run_of(model: str, **settings: Any) -> Run:
    job = parse_job({"model": model, "mode": "generate", **settings})
    return resolve(job, shape(model), find_device(job.gpu))


class TestTheKeyValueCache:
    def test_of_grouped_queries_holds_key_value_heads_alone(self):
        # 8B: 32 layers, 8 key-value heads of 128; 2 tensors of 2 B
        assert cache_bytes(shape(LLAMA_3), 1, 1000, windowed=False) == 32 * 2 * 2 * 1000 * 8 * 128
        assert cache_bytes(shape(LLAMA_3), 4, 1000, windowed=False) == 4 * cache_bytes(
            shape(LLAMA_3), 1, 1000, windowed=False
        )

    def test_of_sliding_layers_holds_their_window(self):
        # gemma-3-1b: 26 layers, every sixth full (4), windows of 512, one key-value head of 256
        per_row = 2 * 2 * 256
        assert cache_bytes(shape(GEMMA_3), 1, 10_000, windowed=True) == per_row * (22 * 512 + 4 * 10_000)
        assert cache_bytes(shape(GEMMA_3), 1, 100, windowed=True) == per_row * 26 * 100
        assert cache_bytes(shape(GEMMA_3), 1, 10_000, windowed=False) == per_row * 26 * 10_000

    @pytest.mark.parametrize(("new", "rows"), [(0, 1512), (1, 1512), (512, 1512), (513, 2024), (1024, 2024)])
    def test_grows_by_512_rows_in_unsloths_forward(self, new, rows):
        assert cache_rows(run_of(LLAMA_3, max_new_tokens=new), 1000) == rows

    def test_grows_by_a_row_a_token_elsewhere(self):
        assert cache_rows(run_of(GEMMA_3, max_new_tokens=7), 1000) == 1007
        assert cache_rows(run_of(LLAMA_3, max_new_tokens=7, framework="transformers"), 1000) == 1007

    def test_is_a_term_of_a_generation(self):
        job = parse_job({"model": LLAMA_3, "mode": "generate", "max_seq_length": 4096, "max_new_tokens": 600})
        answer = estimate(job, shape(LLAMA_3))
        decode = {t.name: t.bytes for p in answer.phases if p.phase == "decode" for t in p.terms}
        assert decode["kv_cache"] == 32 * 4 * (4096 + 1024) * 1024
        assert decode["kv_cache_growth"] == 4 * (4096 + 1024) * 1024
        assert [p.phase for p in answer.phases] == ["load", "peft", "prefill", "decode"]
