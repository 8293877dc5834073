"""Families whose every layer has one MLP: llama, mistral, qwen2, qwen3, gemma, gemma2, gemma3_text, phi3,
granite, cohere.

Source: transformers 5.17.0, ``models/<family>/modeling_<family>.py``: the linears and their biases from
``Attention`` and ``MLP``, the norms from ``DecoderLayer``, the windows and defaults from
``configuration_<family>.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from estimator.architecture import Architecture, Linear
from estimator.errors import UnsupportedArchitecture
from estimator.families.blocks import (
    Sizes,
    assemble,
    attention_linears,
    mlp_linears,
    read_sizes,
    sliding_window,
    uniform,
    used_sliding_window,
    windows_by_type,
)
from estimator.families.fields import MAX_LAYERS, Config
from estimator.families.rope import read_rope


def _linears(config: Config, sizes: Sizes, *, mlp_bias: bool = False) -> tuple[Linear, ...]:
    """Attention whose biases are ``attention_bias``, and a gated MLP."""
    bias = config.flag("attention_bias", False)
    return attention_linears(sizes, qkv_bias=bias, o_bias=bias) + mlp_linears(
        sizes.hidden_size, sizes.intermediate_size, bias=mlp_bias
    )


def _everywhere(sizes: Sizes, window: int | None = None) -> Sequence[int | None]:
    return (window,) * sizes.num_hidden_layers


def _llama(config: Config) -> Architecture:
    return _llama_like(config, "llama", native_length=2048)


def _granite(config: Config) -> Architecture:
    return _llama_like(config, "granite", native_length=2048)


def _llama_like(config: Config, model_type: str, *, native_length: int) -> Architecture:
    sizes = read_sizes(config, key_value_heads="as_heads")
    linears = _linears(config, sizes, mlp_bias=config.flag("mlp_bias", False))
    layers = uniform(sizes, linears, 2 * sizes.hidden_size, _everywhere(sizes))
    return assemble(config, model_type, sizes, layers, read_rope(config, native_length=native_length))


def _mistral(config: Config) -> Architecture:
    sizes = read_sizes(config, key_value_heads="required")
    linears = attention_linears(sizes) + mlp_linears(sizes.hidden_size, sizes.intermediate_size)
    windows = _everywhere(sizes, sliding_window(config, 4096))
    layers = uniform(sizes, linears, 2 * sizes.hidden_size, windows)
    return assemble(config, "mistral", sizes, layers, read_rope(config, native_length=4096 * 32))


def _qwen_windows(config: Config, sizes: Sizes) -> Sequence[int | None]:
    """Full attention, or a window from layer ``max_window_layers`` on."""
    window = used_sliding_window(config)
    first = config.integer("max_window_layers", 28, MAX_LAYERS, minimum=0)
    return windows_by_type(config, sizes.num_hidden_layers, window, lambda i: window is not None and i >= first)


def _qwen2(config: Config) -> Architecture:
    sizes = read_sizes(config, key_value_heads="as_heads_if_null")
    linears = attention_linears(sizes, qkv_bias=True) + mlp_linears(sizes.hidden_size, sizes.intermediate_size)
    layers = uniform(sizes, linears, 2 * sizes.hidden_size, _qwen_windows(config, sizes))
    return assemble(config, "qwen2", sizes, layers, read_rope(config, native_length=32_768))


def _qwen3(config: Config) -> Architecture:
    sizes = read_sizes(config, key_value_heads="as_heads_if_null", derived_head_dim=False)
    linears = _linears(config, sizes)
    norms = 2 * sizes.hidden_size + 2 * sizes.head_dim  # q_norm and k_norm are one head wide
    layers = uniform(sizes, linears, norms, _qwen_windows(config, sizes))
    return assemble(config, "qwen3", sizes, layers, read_rope(config, native_length=32_768), qk_norm=True)


def _gemma(config: Config) -> Architecture:
    _refuse_bidirectional(config)
    sizes = read_sizes(config, key_value_heads="required", derived_head_dim=False)
    layers = uniform(sizes, _linears(config, sizes), 2 * sizes.hidden_size, _everywhere(sizes))
    return assemble(config, "gemma", sizes, layers, read_rope(config, native_length=8192), tied=True)


def _gemma2(config: Config) -> Architecture:
    _refuse_bidirectional(config)
    sizes = read_sizes(config, key_value_heads="required", derived_head_dim=False)
    window = sliding_window(config, 4096)
    windows = windows_by_type(config, sizes.num_hidden_layers, window, lambda i: i % 2 == 0)
    layers = uniform(sizes, _linears(config, sizes), 4 * sizes.hidden_size, windows)
    return assemble(
        config,
        "gemma2",
        sizes,
        layers,
        read_rope(config, native_length=8192),
        tied=True,
        logit_softcap=config.nullable_number("final_logit_softcapping", 30.0),
        attention_softcap=config.nullable_number("attn_logit_softcapping", 50.0),
    )


def _gemma3(config: Config) -> Architecture:
    _refuse_bidirectional(config)
    sizes = read_sizes(config, key_value_heads="required", derived_head_dim=False)
    pattern = config.integer("sliding_window_pattern", 6, MAX_LAYERS)
    window = sliding_window(config, 4096)
    windows = windows_by_type(config, sizes.num_hidden_layers, window, lambda i: (i + 1) % pattern != 0)
    norms = 4 * sizes.hidden_size + 2 * sizes.head_dim
    layers = uniform(sizes, _linears(config, sizes), norms, windows)
    return assemble(
        config,
        "gemma3_text",
        sizes,
        layers,
        read_rope(config, native_length=131_072, theta=1_000_000.0, local_theta=10_000.0),
        tied=True,
        qk_norm=True,
        logit_softcap=config.nullable_number("final_logit_softcapping", None),
        attention_softcap=config.nullable_number("attn_logit_softcapping", None),
    )


def _refuse_bidirectional(config: Config) -> None:
    if config.flag("use_bidirectional_attention", False):
        message = "attention in both directions is not modelled; support would need a measured run of such a model"
        raise UnsupportedArchitecture(message, key="use_bidirectional_attention", allowed="false")


def _phi3(config: Config) -> Architecture:
    sizes = read_sizes(config, key_value_heads="as_heads")
    hidden, width = sizes.hidden_size, sizes.intermediate_size
    qkv = sizes.query_width + 2 * sizes.key_value_width
    linears = (
        Linear(path="self_attn.qkv_proj", in_features=hidden, out_features=qkv),
        Linear(path="self_attn.o_proj", in_features=sizes.query_width, out_features=hidden),
        Linear(path="mlp.gate_up_proj", in_features=hidden, out_features=2 * width),
        Linear(path="mlp.down_proj", in_features=width, out_features=hidden),
    )
    layers = uniform(sizes, linears, 2 * hidden, _everywhere(sizes, sliding_window(config, None)))
    rope = read_rope(config, native_length=4096)
    if rope.scaling == "yarn":  # an old name in phi3 configs, Phi3Config.convert_rope_params_to_dict
        rope = rope._replace(scaling="longrope")
    return assemble(config, "phi3", sizes, layers, rope, fused_qkv=True)


def _cohere(config: Config) -> Architecture:
    sizes = read_sizes(config, key_value_heads="as_heads")
    qk_norm = config.flag("use_qk_norm", False)
    linears = _linears(config, sizes)
    # One LayerNorm without bias feeds both halves of the block; q_norm and k_norm are all heads wide.
    norms = sizes.hidden_size + (sizes.query_width + sizes.key_value_width if qk_norm else 0)
    layers = uniform(sizes, linears, norms, _everywhere(sizes))
    rope = read_rope(config, native_length=8192, theta=500_000.0)
    return assemble(config, "cohere", sizes, layers, rope, tied=True, qk_norm=qk_norm, parallel_block=True)


DENSE: Mapping[str, Callable[[Config], Architecture]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "phi3": _phi3,
    "granite": _granite,
    "cohere": _cohere,
}
