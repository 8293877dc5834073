"""Bytes of base weights, against numbers worked out by hand from the formats."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ctxplan.models import resolve_model
from estimator import estimate, parse_job
from estimator.architecture import Linear, Quantization
from estimator.families import read_config
from estimator.weights import (
    SkippedModules,
    checkpoint_storage,
    keeps_checkpoint,
    layer_weight_bytes,
    tensor_bytes,
    weight_bytes,
)
from tests.estimator.configs import small_config

SQUARE = 4096 * 4096


class TestALinearOf4096By4096:
    def test_in_nf4_with_double_quantisation(self):
        packed = 8_388_608  # half a byte a weight
        absmax = 262_144  # one byte a block of 64
        nested = 4_096  # 1024 fp32, one a block of 256 of those
        tables = 512 + 1_024 + 512  # 16 and 256 fp32, and the offset, each in a block of 512 B
        assert tensor_bytes(SQUARE, "nf4_double_quant") == packed + absmax + nested + tables == 8_656_896

    def test_in_nf4_without_double_quantisation(self):
        assert tensor_bytes(SQUARE, "nf4") == 8_388_608 + 4 * 262_144 + 512 == 9_437_696

    def test_in_int8_with_a_scale_a_row(self):
        assert tensor_bytes(SQUARE, "int8", rows=4096) == 16_777_216 + 16_384

    def test_in_fp8_with_a_scale_a_tile_of_128_by_128(self):
        assert tensor_bytes(SQUARE, "fp8", rows=4096) == 16_777_216 + 4 * 32 * 32

    def test_in_mxfp4_with_a_scale_byte_a_block_of_32(self):
        assert tensor_bytes(SQUARE, "mxfp4") == 8_388_608 + 524_288

    def test_in_16_and_32_bit(self):
        assert tensor_bytes(SQUARE, "bf16") == 33_554_432
        assert tensor_bytes(SQUARE, "fp32") == 67_108_864


def test_small_tensors_take_whole_blocks_of_the_allocator():
    assert tensor_bytes(1, "bf16") == 512
    assert tensor_bytes(64, "nf4_double_quant") == 512 + 512 + 512 + 2_048
    assert tensor_bytes(257, "bf16") == 1024


def test_70b_in_nf4_has_the_bytes_of_its_checkpoint():
    """unsloth-memory.md, section 13, row 1; and the 2 KiB of tables that each of 560 linears has."""
    weights = weight_bytes(
        resolve_model("unsloth/Llama-3.3-70B-Instruct-bnb-4bit", offline=True).architecture, "nf4_double_quant"
    )
    assert weights.embedding == weights.head == 2_101_346_304
    assert weights.total == 39_517_110_272 + 560 * 2_048


def test_a_tied_head_costs_nothing():
    weights = weight_bytes(resolve_model("meta-llama/Llama-3.2-1B-Instruct", offline=True).architecture, "bf16")
    assert weights.head == 0
    assert weights.embedding == 2 * 128_256 * 2048


LINEAR = Linear(path="mlp.down_proj", in_features=112, out_features=64)
LAYERS = (0, 1, 2, 3, 4)


def skipped(*entries: str) -> int:
    quantization = Quantization(method="bitsandbytes_4bit", double_quant=True, skip_modules=entries)
    return SkippedModules(quantization).layers(LINEAR, LAYERS)


class TestSkippedModules:
    def test_none_keep_nothing(self):
        assert skipped() == SkippedModules(None).layers(LINEAR, LAYERS) == 0

    @pytest.mark.parametrize("entry", ["down_proj", "mlp", "mlp.down_proj"])
    def test_by_name_or_path_inside_a_layer_keep_it_in_every_layer(self, entry):
        assert skipped(entry) == 5

    @pytest.mark.parametrize("entry", ["lm_head", "proj", "down", "own_proj", "o_proj", "mlp.down", "self_attn"])
    def test_of_other_names_do_not_touch_it(self, entry):
        assert skipped(entry) == 0

    @pytest.mark.parametrize(
        "entry",
        ["model.layers.3.mlp.down_proj", "layers.3.mlp.down_proj", "model.layers.3.mlp", "model.layers.3", "layers.3"],
    )
    def test_by_full_path_keep_it_in_that_layer(self, entry):
        assert skipped(entry) == 1

    def test_of_layers_that_are_not_there_or_twice_the_same_count_once(self):
        assert skipped("model.layers.9.mlp.down_proj") == 0
        assert skipped("model.layers.3.mlp", "model.layers.3.mlp.down_proj") == 1
        assert skipped("model.layers.1.mlp", "model.layers.2.mlp.down_proj") == 2

    def test_make_the_checkpoint_larger_by_16_bit_less_4_bit(self):
        def size(*entries: str) -> int:
            config = quantised_config(llm_int8_skip_modules=list(entries))
            return layer_weight_bytes(read_config(config), "nf4_double_quant", "nf4_double_quant")

        whole, packed = tensor_bytes(64 * 112, "bf16"), tensor_bytes(64 * 112, "nf4_double_quant")
        assert size("model.layers.3.mlp.down_proj") - size() == whole - packed
        assert size("down_proj") - size() == 5 * (whole - packed)


def quantised_config(**changes: Any) -> dict[str, Any]:
    quantization = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_use_double_quant": True, **changes}
    return small_config("llama", quantization_config=quantization)


def test_a_checkpoint_names_its_own_storage():
    assert (
        checkpoint_storage(Quantization(method="bitsandbytes_4bit", double_quant=True, skip_modules=()))
        == "nf4_double_quant"
    )
    assert checkpoint_storage(Quantization(method="bitsandbytes_4bit", double_quant=False, skip_modules=())) == "nf4"
    assert checkpoint_storage(Quantization(method="mxfp4", double_quant=False, skip_modules=())) == "mxfp4"
    assert keeps_checkpoint(None, "bf16")
    assert not keeps_checkpoint(None, "nf4")


@pytest.mark.parametrize(("double", "storage"), [(True, "nf4_double_quant"), (False, "nf4")])
def test_double_quantisation_is_read_from_the_config(double, storage):
    config = quantised_config(bnb_4bit_use_double_quant=double)
    answer = estimate(parse_job({"model": config, "max_seq_length": 64}), read_config(config))
    assert answer.phases[0].terms[0].formula.startswith(f"{storage} ")


def test_cost_does_not_grow_with_depth():
    shallow = read_config(small_config("llama", num_hidden_layers=2))
    deep = read_config(small_config("llama", num_hidden_layers=900))
    assert len(deep.layers) == len(shallow.layers) == 1
    assert layer_weight_bytes(deep, "bf16", "bf16") == 450 * layer_weight_bytes(shallow, "bf16", "bf16")


def test_stored_bytes_of_a_checkpoint_are_taken_only_in_its_own_storage():
    plain = read_config(small_config("llama"))
    assert plain.stored is None
    assert layer_weight_bytes(replace(plain, stored=None), "nf4", "nf4") == layer_weight_bytes(plain, "nf4", "nf4")
