"""Reading a config: what each family makes of its keys, and what is refused."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from estimator.architecture import Architecture
from estimator.errors import ArchitectureError, UnsupportedArchitecture
from estimator.families import FAMILIES, read_config
from tests.estimator.configs import BASE, small_config

REQUIRED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def read(model_type: str, **changes: Any) -> Architecture:
    return read_config(small_config(model_type, **changes))


def linear_names(architecture: Architecture) -> list[str]:
    return [linear.name for linear in architecture.layers[0].linears]


def windows(architecture: Architecture) -> list[int | None]:
    found: dict[int, int | None] = {}
    for group in architecture.layers:
        found.update(dict.fromkeys(group.indices, group.sliding_window))
    return [found[i] for i in range(architecture.num_hidden_layers)]


class TestEveryFamily:
    def test_has_a_small_config(self):
        assert set(BASE) == set(FAMILIES)

    @pytest.mark.parametrize("model_type", FAMILIES)
    def test_has_every_layer_in_one_group(self, model_type):
        architecture = read(model_type)
        assert sorted(i for group in architecture.layers for i in group.indices) == [0, 1, 2, 3, 4]
        assert architecture.model_type == model_type

    @pytest.mark.parametrize("model_type", FAMILIES)
    @pytest.mark.parametrize("key", REQUIRED)
    def test_requires_its_dimensions(self, model_type, key):
        config = small_config(model_type)
        del config[key]
        with pytest.raises(ArchitectureError) as caught:
            read_config(config)
        assert caught.value.key == key
        assert caught.value.allowed

    @pytest.mark.parametrize("model_type", FAMILIES)
    @pytest.mark.parametrize("value", [0, -1, True, "64", 64.0, float("nan"), 10**30, [64], {}])
    def test_refuses_an_absurd_width(self, model_type, value):
        with pytest.raises(ArchitectureError) as caught:
            read(model_type, hidden_size=value)
        assert caught.value.key == "hidden_size"

    @pytest.mark.parametrize("model_type", FAMILIES)
    def test_refuses_heads_that_the_key_value_heads_do_not_divide(self, model_type):
        with pytest.raises(ArchitectureError) as caught:
            read(model_type, num_key_value_heads=3)
        assert caught.value.key == "num_key_value_heads"


class TestDimensionsThatAreNotGiven:
    @pytest.mark.parametrize("model_type", ["llama", "phi3", "granite", "cohere"])
    def test_key_value_heads_are_the_heads_where_the_class_says_so(self, model_type):
        config = small_config(model_type)
        del config["num_key_value_heads"]
        assert read_config(config).num_key_value_heads == 8

    @pytest.mark.parametrize("model_type", ["mistral", "qwen3", "gemma", "mixtral", "qwen3_moe", "gpt_oss"])
    def test_key_value_heads_are_required_where_the_class_has_a_constant(self, model_type):
        config = small_config(model_type)
        del config["num_key_value_heads"]
        with pytest.raises(ArchitectureError) as caught:
            read_config(config)
        assert caught.value.key == "num_key_value_heads"

    @pytest.mark.parametrize("model_type", ["llama", "mistral", "qwen2", "phi3", "mixtral", "qwen2_moe"])
    def test_head_dim_is_derived(self, model_type):
        assert read(model_type).head_dim == 8

    @pytest.mark.parametrize("model_type", ["qwen3", "gemma", "gemma2", "gemma3_text", "gpt_oss"])
    def test_head_dim_is_required_where_the_class_has_a_constant(self, model_type):
        with pytest.raises(ArchitectureError) as caught:
            read(model_type, head_dim=None)
        assert caught.value.key == "head_dim"

    def test_head_dim_is_not_rounded(self):
        with pytest.raises(ArchitectureError, match="divisor of hidden_size"):
            read("llama", hidden_size=65)

    def test_an_odd_head_dim_is_refused(self):
        with pytest.raises(ArchitectureError) as caught:
            read("llama", head_dim=7)
        assert caught.value.key == "head_dim"


class TestLayers:
    def test_biases_follow_the_flags(self):
        biased = {x.name for x in read("llama", attention_bias=True, mlp_bias=True).layers[0].linears if x.bias}
        assert biased == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
        assert not any(x.bias for x in read("llama").layers[0].linears)

    def test_qwen2_has_biases_on_queries_keys_and_values_alone(self):
        assert [x.name for x in read("qwen2").layers[0].linears if x.bias] == ["q_proj", "k_proj", "v_proj"]

    def test_phi3_has_fused_projections(self):
        architecture = read("phi3")
        assert linear_names(architecture) == ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
        assert architecture.layers[0].linears[0].out_features == 8 * 8 + 2 * 2 * 8
        assert architecture.fused_qkv

    def test_cohere_has_one_norm_and_a_parallel_block(self):
        architecture = read("cohere")
        assert architecture.parallel_block
        assert architecture.layers[0].norm_elements == 64
        assert read("cohere", use_qk_norm=True).layers[0].norm_elements == 64 + (8 + 2) * 8

    def test_gemma3_has_four_norms_and_those_of_its_heads(self):
        assert read("gemma3_text").layers[0].norm_elements == 4 * 64 + 2 * 12

    def test_gpt_oss_counts_its_sinks_and_biases(self):
        group = read("gpt_oss").layers[0]
        assert group.norm_elements == 2 * 64 + 8
        assert group.experts is not None
        assert group.experts.biases == 6 * (2 * 112 + 64)
        assert group.experts.router == 6 * 64 + 6
        assert read("gpt_oss").attention_sinks

    def test_mlp_only_layers_and_the_sparse_step_make_dense_layers(self):
        architecture = read("qwen3_moe", decoder_sparse_step=2, mlp_only_layers=[3])
        sparse = [i for group in architecture.layers if group.experts for i in group.indices]
        assert sparse == [1]
        assert {g.intermediate_size for g in architecture.layers} == {0, 112}

    def test_qwen2_moe_lists_its_shared_expert_as_linears(self):
        architecture = read("qwen2_moe")
        paths = [linear.path for linear in architecture.layers[0].linears]
        assert paths[4:] == [
            "mlp.shared_expert.gate_proj",
            "mlp.shared_expert.up_proj",
            "mlp.shared_expert.down_proj",
            "mlp.shared_expert_gate",
        ]
        assert architecture.layers[0].intermediate_size == 40

    def test_either_name_of_the_expert_count_is_read(self):
        config = small_config("qwen3_moe")
        config["num_local_experts"] = config.pop("num_experts")
        assert read_config(config) == read("qwen3_moe")

    def test_expert_counts_that_disagree_are_refused(self):
        with pytest.raises(ArchitectureError, match="num_experts"):
            read("qwen3_moe", num_local_experts=7)

    def test_more_experts_a_token_than_experts_are_refused(self):
        with pytest.raises(ArchitectureError) as caught:
            read("mixtral", num_experts_per_tok=7)
        assert caught.value.key == "num_experts_per_tok"

    def test_tied_embeddings_have_each_family_default(self):
        tied = {model_type for model_type in FAMILIES if read(model_type).tie_word_embeddings}
        assert tied == {"gemma", "gemma2", "gemma3_text", "cohere"}


class TestWindows:
    def test_mistral_slides_everywhere_or_nowhere(self):
        assert windows(read("mistral")) == [None] * 5
        assert windows(read("mistral", sliding_window=16)) == [16] * 5

    def test_mistral_without_the_key_has_its_class_window(self):
        config = small_config("mistral")
        del config["sliding_window"]
        assert windows(read_config(config)) == [4096] * 5

    def test_qwen_windows_need_the_flag(self):
        assert windows(read("qwen2", sliding_window=16)) == [None] * 5
        changes = {"sliding_window": 16, "max_window_layers": 3, "use_sliding_window": True}
        assert windows(read("qwen2", **changes)) == [None, None, None, 16, 16]
        assert windows(read("qwen3_moe", **changes)) == [16] * 5

    def test_gemma2_and_gpt_oss_alternate(self):
        assert windows(read("gemma2")) == [4096, None, 4096, None, 4096]
        assert windows(read("gpt_oss")) == [128, None, 128, None, 128]

    def test_gemma3_follows_its_pattern(self):
        assert windows(read("gemma3_text", sliding_window=8, sliding_window_pattern=3)) == [8, 8, None, 8, 8]

    def test_layer_types_go_first(self):
        kinds = ["full_attention", "full_attention", "sliding_attention", "full_attention", "full_attention"]
        assert windows(read("gpt_oss", layer_types=kinds)) == [None, None, 128, None, None]

    @pytest.mark.parametrize("kinds", [["full_attention"], ["chunked_attention"] * 5, "full_attention", [1] * 5])
    def test_layer_types_of_another_shape_are_refused(self, kinds):
        with pytest.raises(ArchitectureError) as caught:
            read("gemma2", layer_types=kinds)
        assert caught.value.key == "layer_types"

    def test_sliding_layers_without_a_window_are_refused(self):
        with pytest.raises(ArchitectureError) as caught:
            read("gemma2", sliding_window=None)
        assert caught.value.key == "sliding_window"


class TestRope:
    def test_the_old_form_is_read(self):
        scaling = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
        rope = read("llama", rope_theta=5e5, rope_scaling=scaling, max_position_embeddings=131_072).rope
        assert (rope.theta, rope.scaling, rope.factor) == (5e5, "llama3", 8.0)
        assert (rope.native_length, rope.original_length) == (131_072, 8192)

    def test_the_form_of_transformers_5_is_read(self):
        parameters = {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e6}
        rope = read("qwen3", rope_parameters=parameters, max_position_embeddings=4096).rope
        assert (rope.theta, rope.scaling, rope.factor, rope.original_length) == (1e6, "yarn", 4.0, 4096)

    def test_parameters_by_layer_type_are_read(self):
        parameters = {
            "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 2e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 2e4},
        }
        rope = read("gemma3_text", rope_parameters=parameters).rope
        assert (rope.theta, rope.local_theta, rope.scaling, rope.factor) == (2e6, 2e4, "linear", 8.0)

    def test_gemma3_has_its_local_base_in_the_old_form_too(self):
        assert read("gemma3_text", rope_local_base_freq=2e4).rope.local_theta == 2e4
        assert read("gemma3_text").rope.local_theta == 1e4

    def test_phi3_keeps_its_old_names_of_longrope(self):
        for name in ("su", "yarn", "longrope"):
            rope = read("phi3", rope_scaling={"type": name}, original_max_position_embeddings=2048).rope
            assert (rope.scaling, rope.original_length) == ("longrope", 2048)

    @pytest.mark.parametrize("factor", [0, -1.0, float("nan"), float("inf"), "8", True])
    def test_a_factor_that_is_no_number_is_refused(self, factor):
        with pytest.raises(ArchitectureError) as caught:
            read("llama", rope_scaling={"rope_type": "linear", "factor": factor})
        assert caught.value.key == "rope_scaling.factor"

    def test_a_scaling_that_is_not_known_is_refused(self):
        with pytest.raises(ArchitectureError) as caught:
            read("llama", rope_scaling={"rope_type": "mrope"})
        assert caught.value.key == "rope_scaling.rope_type"


class TestQuantization:
    def test_bitsandbytes_is_read_with_its_skip_list(self):
        given = {
            "quant_method": "bitsandbytes",
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "llm_int8_skip_modules": ["lm_head", "model.layers.1.mlp"],
        }
        quantization = read("llama", quantization_config=given).quantization
        assert quantization is not None
        assert (quantization.method, quantization.double_quant) == ("bitsandbytes_4bit", True)
        assert quantization.skip_modules == ("lm_head", "model.layers.1.mlp")

    def test_eight_bit_and_fp8_are_read(self):
        eight = read("llama", quantization_config={"load_in_8bit": True}).quantization
        fp8 = read("llama", quantization_config={"quant_method": "fp8", "weight_block_size": [128, 128]})
        assert eight is not None
        assert eight.method == "bitsandbytes_8bit"
        assert fp8.quantization is not None
        assert fp8.quantization.method == "fp8"

    def test_mxfp4_is_for_gpt_oss(self):
        given = {"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]}
        quantization = read("gpt_oss", quantization_config=given).quantization
        assert quantization is not None
        assert quantization.method == "mxfp4"
        with pytest.raises(UnsupportedArchitecture):
            read("llama", quantization_config=given)

    @pytest.mark.parametrize("method", ["gptq", "awq", "compressed-tensors", None, 4, ["fp8"]])
    def test_other_methods_are_refused_by_name(self, method):
        with pytest.raises(UnsupportedArchitecture) as caught:
            read("llama", quantization_config={"quant_method": method})
        assert caught.value.key == "quantization_config.quant_method"

    def test_a_config_of_both_widths_is_refused(self):
        both = {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": True}
        with pytest.raises(ArchitectureError):
            read("llama", quantization_config=both)


class TestRefusals:
    @pytest.mark.parametrize("model_type", ["llama4", "deepseek_v3", "gemma3", "qwen2_5_vl", "gpt2", "mamba"])
    def test_a_family_that_is_not_modelled_says_what_it_would_need(self, model_type):
        with pytest.raises(UnsupportedArchitecture, match=f"{model_type}.*would need") as caught:
            read_config({"model_type": model_type})
        assert caught.value.key == "model_type"
        assert "llama" in str(caught.value.allowed)

    def test_a_vision_tower_is_refused(self):
        with pytest.raises(UnsupportedArchitecture, match="vision_config"):
            read("gemma3_text", vision_config={})

    def test_attention_in_both_directions_is_refused(self):
        with pytest.raises(UnsupportedArchitecture):
            read("gemma3_text", use_bidirectional_attention=True)

    @pytest.mark.parametrize("model_type", [None, 3, ["llama"], {}, True])
    def test_a_model_type_that_is_no_string_is_refused(self, model_type):
        with pytest.raises(ArchitectureError) as caught:
            read_config({"model_type": model_type})
        assert caught.value.key == "model_type"

    @pytest.mark.parametrize("config", [None, [], "llama", 3])
    def test_what_is_no_object_is_refused(self, config):
        with pytest.raises(ArchitectureError):
            read_config(config)

    @pytest.mark.parametrize("key", ["tie_word_embeddings", "attention_bias"])
    def test_a_flag_is_true_or_false(self, key):
        with pytest.raises(ArchitectureError) as caught:
            read("llama", **{key: 1})
        assert caught.value.key == key

    def test_a_dtype_that_is_not_known_is_refused(self):
        assert read("llama", dtype="float16").torch_dtype == "float16"
        with pytest.raises(ArchitectureError) as caught:
            read("llama", torch_dtype="int4")
        assert caught.value.key == "torch_dtype"


_WORDS = st.text("ab_é\0", max_size=4)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=4,
)
_KEYS = (
    *small_config("qwen3_moe"),
    *(
        "rope_scaling",
        "rope_parameters",
        "rope_theta",
        "layer_types",
        "quantization_config",
        "mlp_only_layers",
    ),
    *("sliding_window", "use_sliding_window", "decoder_sparse_step", "tie_word_embeddings", "dtype"),
)


@given(changes=st.dictionaries(st.sampled_from(_KEYS), _JSON, max_size=3), family=st.sampled_from(list(FAMILIES)))
def test_any_json_gives_an_architecture_or_an_error_of_ours(changes, family):
    with suppress(ArchitectureError):
        assert read_config({**small_config(family), **changes}).num_hidden_layers >= 1
