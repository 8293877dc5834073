"""Adapters and optimizer state, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from ctxplan.models import resolve_model
from estimator import JobError, estimate, parse_job
from estimator.adapters import (
    check_targets,
    first_layer_lora_bytes,
    fused_kernels,
    known_targets,
    lora_parameters,
    lora_tensors,
)
from estimator.families import read_config
from estimator.job import ALL_LINEAR, OPTIMIZERS
from estimator.optimizer import OPTIMIZER_KINDS, Tensors
from tests.estimator.configs import small_config

SEVEN = frozenset(ALL_LINEAR)
LLAMA_70B = resolve_model("meta-llama/Llama-3.3-70B-Instruct", offline=True).architecture
LLAMA_8B = resolve_model("meta-llama/Llama-3.1-8B-Instruct", offline=True).architecture


class TestAdapters:
    def test_of_the_70b_at_rank_32_are_414_million(self):
        """80 layers * 32 * (q 16384, k and v 9216 each, o 16384, gate, up and down 36864 each)."""
        trainable = lora_parameters(lora_tensors(LLAMA_70B, 32, SEVEN))
        assert trainable.lora_elements == 80 * 32 * (2 * 16_384 + 2 * 9_216 + 3 * 36_864) == 414_187_520
        assert trainable.lora_bytes == 4 * 414_187_520

    def test_of_query_and_value_at_rank_16_of_the_8b(self):
        trainable = lora_parameters(lora_tensors(LLAMA_8B, 16, frozenset({"q_proj", "v_proj"})))
        assert trainable.lora_elements == 32 * 16 * (8_192 + 5_120) == 6_815_744

    def test_of_rank_1_take_a_block_a_tensor(self):
        small = read_config(small_config("llama"))
        trainable = lora_parameters(lora_tensors(small, 1, frozenset({"q_proj"})))
        assert trainable.lora_elements == 5 * (64 + 64)
        assert trainable.lora_bytes == 5 * 2 * 512

    def test_of_the_first_layer_are_one_share_of_all(self):
        assert 80 * first_layer_lora_bytes(LLAMA_70B, 32, SEVEN) == 4 * 414_187_520

    def test_of_experts_are_one_pair_an_expert(self):
        config = small_config("qwen3_moe")
        trainable = lora_parameters(lora_tensors(read_config(config), 2, frozenset({"down_proj"})))
        assert trainable.lora_elements == 5 * 6 * 2 * (24 + 64)

    def test_fit_the_models_own_linears(self):
        assert known_targets(LLAMA_8B) == ALL_LINEAR
        phi = resolve_model("microsoft/phi-4", offline=True).architecture
        assert known_targets(phi) == ("qkv_proj", "o_proj", "gate_up_proj", "down_proj")
        check_targets(phi, ("qkv_proj", "lm_head"))
        with pytest.raises(JobError, match="q_proj") as caught:
            check_targets(phi, ("q_proj",))
        assert caught.value.key == "target_modules"

    def test_of_all_of_a_kernels_projections_are_fused(self):
        assert fused_kernels(SEVEN) == (True, True, True)
        assert fused_kernels(frozenset({"q_proj", "v_proj"})) == (False, False, False)
        assert fused_kernels(frozenset({"gate_proj", "up_proj", "down_proj"})) == (False, False, True)


LARGE = Tensors(4096, 32, 1, 4)  # 131,072 elements
ONE_OVER = Tensors(4096, 1, 1, 4)
ONE_UNDER = Tensors(4095, 1, 1, 4)


def state(optim: str, tensor: Tensors) -> int:
    return OPTIMIZER_KINDS[optim].state_bytes(tensor)


class TestOptimizerState:
    def test_in_8_bit_is_two_bytes_an_element_and_a_scale_a_block_of_256(self):
        assert state("adamw_8bit", LARGE) == 2 * (131_072 + 4 * 512)
        assert state("adamw_bnb_8bit", LARGE) == state("adamw_8bit", LARGE)

    def test_under_4096_elements_stays_in_32_bit(self):
        assert state("adamw_8bit", ONE_OVER) == 2 * (4096 + 512)
        assert state("adamw_8bit", ONE_UNDER) == 2 * 16_384
        assert state("lion_8bit", ONE_UNDER) == 16_384

    def test_of_an_embedding_stays_in_32_bit(self):
        assert state("adamw_8bit", LARGE._replace(is_embedding=True)) == 2 * 4 * 131_072

    def test_in_torch_has_the_parameters_own_dtype(self):
        assert state("adamw_torch", LARGE) == state("adamw_torch_fused", LARGE) == 2 * 4 * 131_072
        assert state("adamw_torch", LARGE._replace(itemsize=2)) == 2 * 2 * 131_072

    def test_of_lion_is_half_of_adams(self):
        assert 2 * state("lion_8bit", LARGE) == state("adamw_8bit", LARGE)

    def test_of_plain_sgd_is_nothing(self):
        assert state("sgd", LARGE) == 0

    def test_of_adafactor_is_a_sum_a_row_and_a_column(self):
        assert state("adafactor", LARGE) == 4 * 4096 + 512
        assert state("adafactor", Tensors(4096, 1, 1, 4)) == 4 * 4096

    def test_counts_every_tensor(self):
        assert state("adamw_8bit", LARGE._replace(copies=7)) == 7 * state("adamw_8bit", LARGE)

    def test_of_a_70b_at_rank_32_is_841_megabytes(self):
        """unsloth-memory.md, section 13, row 9."""
        tensors = lora_tensors(LLAMA_70B, 32, SEVEN)
        assert sum(state("adamw_8bit", tensor) for tensor in tensors) == 841_318_400

    def test_that_is_paged_is_on_the_device_and_not_in_torch(self):
        def plan(optim: str):
            return estimate(parse_job({"model": "meta-llama/Llama-3.1-8B-Instruct", "optim": optim}), LLAMA_8B)

        plain, paged = plan("adamw_8bit"), plan("paged_adamw_8bit")
        # Tensors under 100,000 elements are not paged: the A of every q, k, v, o, gate and up at rank 16.
        state = [sum(t.bytes for t in answer.terms if t.name == "optimizer_state") for answer in (plain, paged)]
        moved = state[0] - state[1]
        assert moved > state[1] > 0
        assert plain.peak_allocated_bytes.expected - paged.peak_allocated_bytes.expected == moved
        reserved = plain.peak_reserved_bytes.expected - paged.peak_reserved_bytes.expected
        device = plain.peak_device_bytes.expected - paged.peak_device_bytes.expected
        assert reserved - device == moved
        assert any("paged" in text for text in paged.assumptions)

    def test_is_known_for_every_optim(self):
        assert set(OPTIMIZER_KINDS) == set(OPTIMIZERS)

    def test_takes_foreach_temporaries_only_in_plain_adamw(self):
        assert OPTIMIZER_KINDS["adamw_torch"].step_bytes(1000, 7) == 1000
        assert OPTIMIZER_KINDS["adamw_torch_fused"].step_bytes(1000, 7) == 0
        assert OPTIMIZER_KINDS["adafactor"].step_bytes(1000, 7) == 14
