"""Families with routed experts: mixtral, qwen2_moe, qwen3_moe, gpt_oss.

Source: transformers 5.17.0, ``models/<family>/modeling_<family>.py``: experts are stacked three-dimensional
parameters (``Experts``), the router is a plain parameter (``TopKRouter``), which layers are sparse is in
``DecoderLayer``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from estimator.architecture import Architecture, Experts, LayerGroup, Linear
from estimator.errors import ArchitectureError
from estimator.families.blocks import (
    Sizes,
    assemble,
    attention_linears,
    grouped,
    mlp_linears,
    read_sizes,
    sliding_window,
    uniform,
    used_sliding_window,
    windows_by_type,
)
from estimator.families.fields import MAX_EXPERTS, MAX_LAYERS, Config
from estimator.families.rope import read_rope

_EXPERT_KEYS = ("num_local_experts", "num_experts")


def _mixtral(config: Config) -> Architecture:
    sizes = read_sizes(config, key_value_heads="required")
    count, per_token = _expert_counts(config)
    experts = _gated_experts(count, per_token, sizes.hidden_size, sizes.intermediate_size)
    windows = (sliding_window(config, None),) * sizes.num_hidden_layers
    layers = uniform(sizes, attention_linears(sizes), 2 * sizes.hidden_size, windows, experts)
    return assemble(config, "mixtral", sizes, layers, read_rope(config, native_length=4096 * 32, theta=1_000_000.0))


def _gpt_oss(config: Config) -> Architecture:
    sizes = read_sizes(config, key_value_heads="required", derived_head_dim=False)
    hidden, width = sizes.hidden_size, sizes.intermediate_size
    count, per_token = _expert_counts(config)
    experts = Experts(
        count=count,
        per_token=per_token,
        intermediate_size=width,
        gate_up=2 * hidden * width,
        down=hidden * width,
        biases=count * (2 * width + hidden),
        router=count * (hidden + 1),
    )
    bias = config.flag("attention_bias", True)
    windows = windows_by_type(config, sizes.num_hidden_layers, sliding_window(config, 128), lambda i: i % 2 == 0)
    norms = 2 * hidden + sizes.num_attention_heads  # one sink a head
    layers = uniform(sizes, attention_linears(sizes, qkv_bias=bias, o_bias=bias), norms, windows, experts)
    rope = read_rope(config, native_length=131_072, theta=150_000.0)
    return assemble(config, "gpt_oss", sizes, layers, rope, attention_sinks=True)


def _qwen3_moe(config: Config) -> Architecture:
    sizes = read_sizes(config, key_value_heads="required")
    bias = config.flag("attention_bias", False)
    windows = (used_sliding_window(config),) * sizes.num_hidden_layers
    norms = 2 * sizes.hidden_size + 2 * sizes.head_dim
    attention = attention_linears(sizes, qkv_bias=bias, o_bias=bias)
    layers = _mixed_layers(config, sizes, attention, norms, windows, shared=0)
    return assemble(config, "qwen3_moe", sizes, layers, read_rope(config, native_length=32_768), qk_norm=True)


def _qwen2_moe(config: Config) -> Architecture:
    sizes = read_sizes(config, key_value_heads="required")
    window = used_sliding_window(config)
    last = config.integer("max_window_layers", 28, MAX_LAYERS, minimum=0)
    windows = windows_by_type(
        config, sizes.num_hidden_layers, window, lambda i: window is not None and i % 2 == 0 and i < last
    )
    attention = attention_linears(sizes, qkv_bias=config.flag("qkv_bias", True))
    shared = config.dimension("shared_expert_intermediate_size")
    layers = _mixed_layers(config, sizes, attention, 2 * sizes.hidden_size, windows, shared=shared)
    return assemble(config, "qwen2_moe", sizes, layers, read_rope(config, native_length=32_768))


def _mixed_layers(
    config: Config,
    sizes: Sizes,
    attention: tuple[Linear, ...],
    norms: int,
    windows: Sequence[int | None],
    *,
    shared: int,
) -> tuple[LayerGroup, ...]:
    """Sparse layers every ``decoder_sparse_step``, dense ones between them and where ``mlp_only_layers``
    says."""
    hidden = sizes.hidden_size
    count, per_token = _expert_counts(config, least=0)
    width = config.dimension("moe_intermediate_size")
    experts = _gated_experts(count, per_token, hidden, width) if count else None
    step = config.integer("decoder_sparse_step", 1, MAX_LAYERS)
    dense_only = config.indices("mlp_only_layers")
    dense = attention + mlp_linears(hidden, sizes.intermediate_size)
    sparse = attention + (_shared_expert(hidden, shared) if shared else ())

    def make(kind: tuple[int | None, bool], indices: tuple[int, ...]) -> LayerGroup:
        window, routed = kind
        return LayerGroup(
            indices=indices,
            linears=sparse if routed else dense,
            norm_elements=norms,
            intermediate_size=shared if routed else sizes.intermediate_size,
            experts=experts if routed else None,
            sliding_window=window,
        )

    kinds = [(w, count > 0 and i not in dense_only and (i + 1) % step == 0) for i, w in enumerate(windows)]
    return grouped(kinds, make)


def _shared_expert(hidden: int, width: int) -> tuple[Linear, ...]:
    gate = Linear(path="mlp.shared_expert_gate", in_features=hidden, out_features=1)
    return (*mlp_linears(hidden, width, under="mlp.shared_expert"), gate)


def _gated_experts(count: int, per_token: int, hidden: int, width: int) -> Experts:
    return Experts(
        count=count,
        per_token=per_token,
        intermediate_size=width,
        gate_up=2 * hidden * width,
        down=hidden * width,
        router=count * hidden,
    )


def _expert_counts(config: Config, *, least: int = 1) -> tuple[int, int]:
    """Experts and experts a token is routed to. The count has two names, of which either may be written."""
    present = [key for key in _EXPERT_KEYS if config.has(key)]
    if not present:
        raise ArchitectureError("is required", key=_EXPERT_KEYS[0], allowed=f"or {_EXPERT_KEYS[1]}, a whole number")
    counts = {config.dimension(key, MAX_EXPERTS, minimum=least) for key in present}
    if len(counts) > 1:
        raise config.refused(_EXPERT_KEYS[1], f"the same as {_EXPERT_KEYS[0]}")
    count = counts.pop()
    return count, config.dimension("num_experts_per_tok", max(count, 1))


MOE: Mapping[str, Callable[[Config], Architecture]] = {
    "mixtral": _mixtral,
    "qwen2_moe": _qwen2_moe,
    "qwen3_moe": _qwen3_moe,
    "gpt_oss": _gpt_oss,
}
