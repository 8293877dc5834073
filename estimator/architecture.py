"""The shape of a model, as far as memory depends on it.

Symbols used throughout the estimator:

    B  sequences in a micro-batch      S  tokens in a sequence        T  B*S, tokens in a micro-batch
    H  hidden_size                     I  intermediate_size           V  vocab_size
    L  num_hidden_layers               nh, nkv  query and key-value heads       hd  head_dim
    r  LoRA rank                       E, k  experts, experts a token is routed to
    u  2*T*H, one 16-bit hidden state  m  2*T*I, one 16-bit MLP width
    q  2*T*nh*hd, the queries          kv 2*T*nkv*hd, the keys (or the values)

An `Architecture` is made by `estimator.families.read_config` from a Hugging Face ``config.json`` and never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class Linear:
    """A linear layer, weight (out_features, in_features), named as in the model's own module tree.

    Attributes:
        path: dotted path inside its decoder layer, such as ``self_attn.q_proj``; the last part is what
            ``target_modules`` names. name: that last part. weights: weight elements of one copy, without the bias.
        copies: how many like it a decoder layer has (experts that are separate modules); 1 elsewhere.
    """

    path: str
    in_features: int
    out_features: int
    bias: bool = False
    copies: int = 1
    name: str = field(init=False)
    weights: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.path.rpartition(".")[2])
        object.__setattr__(self, "weights", self.in_features * self.out_features)


@dataclass(frozen=True, slots=True, kw_only=True)
class Experts:
    """The routed experts of a sparse layer: three-dimensional parameters, as transformers 5 builds them.

    The linears of a shared expert are among the group's.

    Attributes:
        gate_up, down: elements of one expert's ``gate_up_proj`` and ``down_proj``, biases apart.
        biases: elements of all experts' biases together.
        router: elements of the router, its bias included; a plain parameter that no quantizer replaces.
    """

    count: int
    per_token: int
    intermediate_size: int
    gate_up: int
    down: int
    biases: int = 0
    router: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerGroup:
    """Decoder layers that are alike, and which they are.

    Attributes:
        indices: the layers' numbers in the model; a cut model keeps those below its length.
        linears: every linear layer that can be quantised or adapted, experts apart.
        norm_elements: elements of the layer's norm weights and other vectors that stay in 16 bit.
        intermediate_size: width of the dense MLP of this group (the shared expert's where sparse, 0 where none).
        sliding_window: tokens of the attention window, or None where attention is full.
    """

    indices: tuple[int, ...]
    linears: tuple[Linear, ...]
    norm_elements: int
    intermediate_size: int
    experts: Experts | None = None
    sliding_window: int | None = None


class Quantization(NamedTuple):
    """How a checkpoint is stored, from its ``quantization_config``.

    Attributes:
        method: ``bitsandbytes_4bit``, ``bitsandbytes_8bit``, ``mxfp4``, ``fp8``; others are refused when read.
        double_quant: whether the NF4 absmax are quantised again.
        skip_modules: names (or dotted suffixes, or full paths) of modules kept in 16 bit.
    """

    method: str
    double_quant: bool = False
    skip_modules: tuple[str, ...] = ()


class StoredWeights(NamedTuple):
    """What a checkpoint's tensors take on a GPU once loaded in 16 bit or as they are packed.

    Read from safetensors headers (`ctxplan.checkpoint`); each tensor is rounded up to the 512 bytes of CUDA's
    allocator.

    Attributes:
        layers: bytes of each decoder layer, by its number.
        embedding, lm_head: bytes of the input embedding, and of the head (0 where it is tied and not stored).
        other: bytes of every tensor that is none of these, such as the last norm.
        sixteen_bit_modules: full paths of the decoder's linears that a pre-quantised checkpoint keeps in 16
            bit.
    """

    layers: tuple[int, ...]
    embedding: int
    lm_head: int
    other: int
    sixteen_bit_modules: tuple[str, ...] = ()


class Rope(NamedTuple):
    """Rotary embedding as configured.

    Attributes:
        theta: the base. native_length: ``max_position_embeddings``. scaling: ``rope_type`` (default, linear, llama3,
        yarn, longrope, dynamic). factor: the scaling's factor, 1.0 without one. original_length: the length that was
        scaled from.
        local_theta: base of the sliding-window layers, where they have their own (gemma3).
    """

    theta: float
    native_length: int
    scaling: str = "default"
    factor: float = 1.0
    original_length: int | None = None
    local_theta: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """A causal language model's shape. Every number was in the config, or follows from it by the model's code.

    Attributes:
        parallel_block: attention and MLP read the same normed input and are added together (cohere).
        unread_4bit: the repository that Unsloth loads in place of this model with ``load_in_4bit``, where that keeps
            some layers in 16 bit and its own list of them was not read; empty elsewhere.
        stored: the bytes of a checkpoint's own tensors, where its headers were read (`ctxplan.checkpoint`).
    """

    model_type: str
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    tie_word_embeddings: bool
    layers: tuple[LayerGroup, ...]
    final_norm_elements: int
    rope: Rope
    qk_norm: bool = False
    fused_qkv: bool = False
    attention_sinks: bool = False
    logit_softcap: float | None = None
    attention_softcap: float | None = None
    parallel_block: bool = False
    torch_dtype: str = "bfloat16"
    quantization: Quantization | None = None
    stored: StoredWeights | None = None
    unread_4bit: str = ""

    @property
    def query_width(self) -> int:
        """nh * hd, the width of the queries and of the attention output."""
        return self.num_attention_heads * self.head_dim

    @property
    def key_value_width(self) -> int:
        """nkv * hd, the width of the keys, and of the values."""
        return self.num_key_value_heads * self.head_dim

    @property
    def is_moe(self) -> bool:
        return any(group.experts for group in self.layers)
