"""What decoder layers are made of: the sizes every family has, their linears, windows and groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeVar

from estimator.architecture import Architecture, Experts, LayerGroup, Linear, Rope
from estimator.errors import ArchitectureError
from estimator.families.fields import MAX_HEADS, MAX_LAYERS, MAX_POSITIONS, MAX_VOCABULARY, Config
from estimator.families.quantization import read_quantization

KeyValueHeads = Literal["as_heads", "as_heads_if_null", "required"]
"""What a family's class makes of a missing ``num_key_value_heads``: as many as query heads, or that for an
explicit null alone. Where it has a constant for a default instead, the key is required."""

Kind = TypeVar("Kind")

_DTYPES = ("bfloat16", "float16", "float32")


class Sizes(NamedTuple):
    """The dimensions that every family has."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int

    @property
    def query_width(self) -> int:
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_width(self) -> int:
        return self.num_key_value_heads * self.head_dim


def read_sizes(config: Config, *, key_value_heads: KeyValueHeads, derived_head_dim: bool = True) -> Sizes:
    """Read and check the dimensions.

    Args:
        derived_head_dim: whether the family's class takes hidden_size / num_attention_heads without a
            ``head_dim``; where it has a constant instead, the key is required.
    """
    hidden = config.dimension("hidden_size")
    heads = config.dimension("num_attention_heads", MAX_HEADS)
    nkv = _key_value_heads(config, heads, key_value_heads)
    if heads % nkv:
        raise config.refused("num_key_value_heads", f"a divisor of num_attention_heads, {heads}")
    return Sizes(
        hidden_size=hidden,
        intermediate_size=config.dimension("intermediate_size"),
        num_hidden_layers=config.dimension("num_hidden_layers", MAX_LAYERS),
        num_attention_heads=heads,
        num_key_value_heads=nkv,
        head_dim=_head_dim(config, hidden, heads, derived_head_dim),
        vocab_size=config.dimension("vocab_size", MAX_VOCABULARY),
    )


def _key_value_heads(config: Config, heads: int, absent: KeyValueHeads) -> int:
    null = config.names("num_key_value_heads") and not config.has("num_key_value_heads")
    missing = not config.has("num_key_value_heads")
    if (absent == "as_heads" and missing) or (absent == "as_heads_if_null" and null):
        return heads
    return config.dimension("num_key_value_heads", MAX_HEADS)


def _head_dim(config: Config, hidden: int, heads: int, derived: bool) -> int:
    if config.has("head_dim") or not derived:
        width = config.dimension("head_dim", MAX_HEADS)
    elif hidden % heads:
        raise config.refused("num_attention_heads", f"a divisor of hidden_size, {hidden}, where head_dim is not given")
    else:
        width = hidden // heads
    if width % 2:
        raise ArchitectureError(f"{width} is odd", key="head_dim", allowed="an even number: RoPE turns pairs")
    return width


def attention_linears(sizes: Sizes, *, qkv_bias: bool = False, o_bias: bool = False) -> tuple[Linear, ...]:
    """q_proj, k_proj, v_proj and o_proj."""
    hidden, query, key = sizes.hidden_size, sizes.query_width, sizes.key_value_width
    return (
        Linear(path="self_attn.q_proj", in_features=hidden, out_features=query, bias=qkv_bias),
        Linear(path="self_attn.k_proj", in_features=hidden, out_features=key, bias=qkv_bias),
        Linear(path="self_attn.v_proj", in_features=hidden, out_features=key, bias=qkv_bias),
        Linear(path="self_attn.o_proj", in_features=query, out_features=hidden, bias=o_bias),
    )


def mlp_linears(hidden: int, width: int, *, under: str = "mlp", bias: bool = False) -> tuple[Linear, ...]:
    """gate_proj, up_proj and down_proj of a gated MLP."""
    return (
        Linear(path=f"{under}.gate_proj", in_features=hidden, out_features=width, bias=bias),
        Linear(path=f"{under}.up_proj", in_features=hidden, out_features=width, bias=bias),
        Linear(path=f"{under}.down_proj", in_features=width, out_features=hidden, bias=bias),
    )


def windows_by_type(
    config: Config, layers: int, window: int | None, usual: Callable[[int], bool]
) -> tuple[int | None, ...]:
    """The attention window of each layer, from ``layer_types`` or, without one, where ``usual(layer)`` is
    true.

    Raises:
        ArchitectureError: a ``layer_types`` of another length or kind, or sliding layers without a window.
    """
    given = config.strings("layer_types")
    if given is None:
        sliding: Sequence[bool] = [usual(i) for i in range(layers)]
    elif len(given) != layers or not set(given) <= {"full_attention", "sliding_attention"}:
        raise config.refused("layer_types", f"{layers} of full_attention and sliding_attention")
    else:
        sliding = [kind == "sliding_attention" for kind in given]
    if window is None and any(sliding):
        raise ArchitectureError("is required by layers of sliding_attention", key="sliding_window")
    return tuple(window if slides else None for slides in sliding)


def sliding_window(config: Config, default: int | None) -> int | None:
    """``sliding_window``: the class's default where absent, full attention where null."""
    return config.nullable_integer("sliding_window", default, MAX_POSITIONS)


def used_sliding_window(config: Config) -> int | None:
    """``sliding_window`` of the qwen families, which counts only with ``use_sliding_window``."""
    return sliding_window(config, 4096) if config.flag("use_sliding_window", False) else None


def grouped(kinds: Sequence[Kind], make: Callable[[Kind, tuple[int, ...]], LayerGroup]) -> tuple[LayerGroup, ...]:
    """One group for each kind of layer, in the order of their first layers."""
    members: dict[Kind, list[int]] = {}
    for index, kind in enumerate(kinds):
        members.setdefault(kind, []).append(index)
    return tuple(make(kind, tuple(indices)) for kind, indices in members.items())


def uniform(
    sizes: Sizes, linears: tuple[Linear, ...], norms: int, windows: Sequence[int | None], experts: Experts | None = None
) -> tuple[LayerGroup, ...]:
    """Layers that differ in nothing but their attention window: all dense, or all of routed experts alone."""

    def make(window: int | None, indices: tuple[int, ...]) -> LayerGroup:
        return LayerGroup(
            indices=indices,
            linears=linears,
            norm_elements=norms,
            intermediate_size=0 if experts else sizes.intermediate_size,
            experts=experts,
            sliding_window=window,
        )

    return grouped(windows, make)


def assemble(
    config: Config,
    model_type: str,
    sizes: Sizes,
    layers: tuple[LayerGroup, ...],
    rope: Rope,
    *,
    tied: bool = False,
    qk_norm: bool = False,
    fused_qkv: bool = False,
    attention_sinks: bool = False,
    parallel_block: bool = False,
    logit_softcap: float | None = None,
    attention_softcap: float | None = None,
) -> Architecture:
    """The whole model. ``tied`` is the family's default ``tie_word_embeddings``."""
    return Architecture(
        model_type=model_type,
        **sizes._asdict(),
        tie_word_embeddings=config.flag("tie_word_embeddings", tied),
        layers=layers,
        final_norm_elements=sizes.hidden_size,
        rope=rope,
        qk_norm=qk_norm,
        fused_qkv=fused_qkv,
        attention_sinks=attention_sinks,
        parallel_block=parallel_block,
        logit_softcap=logit_softcap,
        attention_softcap=attention_softcap,
        torch_dtype=_dtype(config),
        quantization=read_quantization(config, expert_stacks=model_type == "gpt_oss"),
    )


def _dtype(config: Config) -> str:
    key = "dtype" if config.has("dtype") else "torch_dtype"
    return config.text(key, "bfloat16", _DTYPES)
